package topic

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/segmentio/kafka-go"
)

// compare reports on a topic that exists. Input is the setup of the topic whose dead letters this one takes, if it is
// one and the other exists.
func (t *Topic) compare(actual kafka.Topic, config, input map[string]string) Report {
	r := Report{Topic: t.Name, State: Exists, Partitions: len(actual.Partitions), Replication: replication(actual)}
	note := func(format string, args ...any) { r.Notes = append(r.Notes, fmt.Sprintf(format, args...)) }
	problem := func(format string, args ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, args...)) }

	if r.Partitions != t.Partitions {
		note("%d partitions, a new one would have %d", r.Partitions, t.Partitions)
	}
	if r.Replication < t.Replication {
		note("%d copies, a new one would have %d", r.Replication, t.Replication)
	}
	if got, want := config[timestampType], t.Config[timestampType]; got != want {
		note("%s is %s: retention and look-up by time follow the producers' clocks; %s would follow the broker's", timestampType, got, want)
	}
	if got, want := config[minInSync], t.Config[minInSync]; number(got) < number(want) {
		note("%s is %s, a new one would have %s", minInSync, got, want)
	}

	switch got, want := config[cleanupPolicy], t.Config[cleanupPolicy]; {
	case got == want:
	case want == "delete" && strings.Contains(got, "compact"):
		problem("%s is %s: the broker removes events that share a key", cleanupPolicy, got)
	case want == "compact" && !strings.Contains(got, "compact"):
		problem("%s is %s: configurations that have not changed for a while are lost to consumers that read it from the start; it should be compact", cleanupPolicy, got)
	default:
		note("%s is %s, a new one would have %s", cleanupPolicy, got, want)
	}
	if want, ok := t.Config[retention]; ok {
		if got := config[retention]; number(got) >= 0 && number(got) < number(want) {
			note("%s is %s, a new one would have %s", retention, got, want)
		}
	}
	if input != nil {
		if got, need := number(config[maxMessageBytes]), number(input[maxMessageBytes])+DeadLetterRoom; got < need {
			problem("%s is %d: the dead letter of the largest event of %s does not fit; it should be %d", maxMessageBytes, got, t.DeadLetters, need)
		}
	}
	if len(r.Problems) > 0 {
		r.State = Wrong
	}
	return r
}

func replication(t kafka.Topic) int {
	if len(t.Partitions) == 0 {
		return 0
	}
	return len(t.Partitions[0].Replicas)
}

// number reads a setting. One that is none counts as 0: the broker has checked it.
func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
