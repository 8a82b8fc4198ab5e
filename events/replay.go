package events

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

// Headers of a record that replay or redrive has published, behind the original ones.
const (
	HeaderReplayID      = "replay-id"      // the task
	HeaderReplayEffects = "replay-effects" // the consumers it is meant for, comma-separated: usage, subscription, company
	HeaderReplayProof   = "replay-proof"   // that this service has set them, see ReplayKey
)

// A ReplayKey makes and checks the proofs in the header replay-proof. Only the service knows it: it is in the table replay_key.
//
// A consumer that is not named in replay-effects leaves the record out. Without a proof, any producer could so take an event
// out of the quota. The proof is over the task, the effects and the identity of the event: it can be copied to the same event
// only.
type ReplayKey []byte

// proofBytes is how much of the HMAC a proof shows.
const proofBytes = 16

// ReplayHeaders gives the headers of a record that a task publishes: the original ones, without those of an earlier replay, and
// the three of this one. Source and id are the event's identity.
func (k ReplayKey) ReplayHeaders(original []Header, task string, effects []string, source, id string) []Header {
	list := strings.Join(effects, ",")
	headers := StripReplayHeaders(original)
	return append(headers,
		Header{HeaderReplayID, []byte(task)},
		Header{HeaderReplayEffects, []byte(list)},
		Header{HeaderReplayProof, k.proof(task, list, source, id)})
}

func (k ReplayKey) proof(task, effects, source, id string) []byte {
	mac := hmac.New(sha256.New, k)
	for _, part := range []string{task, effects, source, id} {
		mac.Write([]byte(part))
		mac.Write([]byte{'\n'}) // which no attribute may hold
	}
	return hex.AppendEncode(nil, mac.Sum(nil)[:proofBytes])
}

// StripReplayHeaders gives the headers without those of replays.
func StripReplayHeaders(headers []Header) []Header {
	kept := make([]Header, 0, len(headers)+3)
	for _, h := range headers {
		switch h.Key {
		case HeaderReplayID, HeaderReplayEffects, HeaderReplayProof:
		default:
			kept = append(kept, h)
		}
	}
	return kept
}

// A Replayed says what the headers of a replayed record say.
type Replayed struct {
	Task    string
	Effects []string

	effects string
	proof   []byte
}

// ReadReplayed reads the headers of a replay. It is false for a record without the header replay-effects. Of a header that
// stands there twice, the last one counts. It costs next to nothing for an ordinary record.
func ReadReplayed(headers []Header) (Replayed, bool) {
	var r Replayed
	found := false
	for i := range headers {
		h := &headers[i]
		if len(h.Key) < len(HeaderReplayID) || h.Key[:7] != "replay-" {
			continue
		}
		switch h.Key {
		case HeaderReplayID:
			r.Task = string(h.Value)
		case HeaderReplayEffects:
			r.effects, found = string(h.Value), true
		case HeaderReplayProof:
			r.proof = h.Value
		}
	}
	if !found {
		return Replayed{}, false
	}
	for name := range strings.SplitSeq(r.effects, ",") {
		if name = strings.TrimSpace(name); name != "" {
			r.Effects = append(r.Effects, name)
		}
	}
	return r, true
}

// Names reports whether a consumer is among the effects.
func (r *Replayed) Names(consumer string) bool { return slices.Contains(r.Effects, consumer) }

// Proven reports whether this service has set the headers, for the event of this identity.
func (k ReplayKey) Proven(r *Replayed, source, id string) bool {
	return len(k) > 0 && hmac.Equal(r.proof, k.proof(r.Task, r.effects, source, id))
}
