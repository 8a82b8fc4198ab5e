package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"tenantflow/events"
)

// fingerprintVersion begins a fingerprint. Those of the first version have no such byte: they are a bare SHA-256.
const fingerprintVersion = 2

// fingerprint tells events of one identity apart by what they say: type, company and the values of the data, however they are written
// and whatever unknown members stand beside them.
func fingerprint(e *events.Event) []byte {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%s\n%s", e.Type, e.Key, e.Canonical())
	return sum.Sum([]byte{fingerprintVersion})
}

// sameEvent reports whether an event is the one that a stored fingerprint was made of. With one of the first version, what counts is
// what that version compared: the data in its own spelling. So a resend that repeats its event is none the less known after an upgrade.
func sameEvent(print []byte, e *events.Event) bool {
	if len(print) == sha256.Size {
		return bytes.Equal(print, firstFingerprint(e))
	}
	return bytes.Equal(print, fingerprint(e))
}

// firstFingerprint is the first version: of all members, numbers and times as they are written.
func firstFingerprint(e *events.Event) []byte {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%s\n", e.Type, e.Key)
	var data any
	d := json.NewDecoder(bytes.NewReader(e.Data))
	d.UseNumber()
	text := []byte(e.Data)
	if d.Decode(&data) == nil {
		if sorted, err := json.Marshal(data); err == nil {
			text = sorted
		}
	}
	sum.Write(text)
	return sum.Sum(nil)
}
