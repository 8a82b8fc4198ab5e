package clickhouse

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drawIntent draws any intent that can come about.
func drawIntent(t *rapid.T) *Intent {
	in := &Intent{
		Topic:     rapid.StringMatching(`[a-zA-Z0-9._-]{1,40}`).Draw(t, "topic"),
		Partition: rapid.IntRange(0, 65535).Draw(t, "partition"),
		From:      rapid.Int64Range(0, 1<<60).Draw(t, "from"),
		InsertBy:  time.UnixMilli(rapid.Int64Range(1, 1<<45).Draw(t, "insert by")),
	}
	in.To = in.From + rapid.Int64Range(1, 1<<32).Draw(t, "offsets")
	in.oldToken = rapid.Bool().Draw(t, "old form")
	if rapid.Bool().Draw(t, "resent") {
		in.ResendBy = time.UnixMilli(rapid.Int64Range(1, 1<<45).Draw(t, "resend by"))
	}
	// Two years of months, and the hours of the next one that the service's clock may be ahead.
	for range rapid.IntRange(1, 26).Draw(t, "parts") {
		in.Parts = append(in.Parts, Part{
			Month: rapid.IntRange(2000, 2100).Draw(t, "year")*100 + rapid.IntRange(1, 12).Draw(t, "month"),
			Hash:  rapid.Uint64().Draw(t, "hash"),
		})
	}
	return in
}

func TestAnIntentSurvivesItsMetadata(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := drawIntent(t)
		metadata := in.Metadata()
		if len(metadata) > 4096 {
			t.Fatalf("%d bytes are more than Kafka takes", len(metadata))
		}
		back, err := ParseIntent(in.Topic, in.Partition, in.From, metadata)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(back, in) {
			t.Fatalf("%+v became %+v", in, back)
		}
		if !back.Deadline().Equal(in.Deadline()) || back.Deadline().Before(in.InsertBy) || back.Deadline().Before(in.ResendBy) {
			t.Fatalf("deadline %s of %+v", back.Deadline(), in)
		}
		for i, p := range in.Parts {
			if back.token(back.Parts[i]) != in.token(p) || !strings.HasPrefix(in.token(p), in.comment()) {
				t.Fatalf("token %q", in.token(p))
			}
		}
	})
}

func TestTokensOfDifferentInsertsDiffer(t *testing.T) {
	t.Parallel()
	base := Intent{Topic: "usage", Partition: 1, From: 10, To: 20, InsertBy: time.UnixMilli(1000)}
	part := Part{Month: 202611, Hash: 7}
	tokens := map[string]string{"base": base.token(part)}
	for name, change := range map[string]func(*Intent, *Part){
		"topic":     func(in *Intent, _ *Part) { in.Topic = "other" },
		"partition": func(in *Intent, _ *Part) { in.Partition = 2 },
		"from":      func(in *Intent, _ *Part) { in.From = 11 },
		"to":        func(in *Intent, _ *Part) { in.To = 21 },
		"deadline":  func(in *Intent, _ *Part) { in.InsertBy = in.InsertBy.Add(time.Millisecond) },
		"month":     func(_ *Intent, p *Part) { p.Month = 202610 },
		"hash":      func(_ *Intent, p *Part) { p.Hash = 8 },
	} {
		in, p := base, part
		change(&in, &p)
		for other, token := range tokens {
			if token == in.token(p) {
				t.Errorf("the tokens of %s and %s are both %s", name, other, token)
			}
		}
		tokens[name] = in.token(p)
	}
	resent := base
	resent.ResendBy = time.UnixMilli(6)
	if resent.token(part) != base.token(part) {
		t.Error("the token depends on the deadline of the resend, so the resend would not be known again")
	}
}

func TestIntent_OfTheOldFormKeepsItsToken(t *testing.T) {
	t.Parallel()
	in, err := ParseIntent("usage", 1, 10, "tf1 20 1000 2000 202611:7")
	if err != nil {
		t.Fatal(err)
	}
	// The form in which the version before wrote tokens. Rows that landed with it are completed with it.
	const want = "tenantflow:usage_tracking:usage:1:10-20:202611:0000000000000007"
	if got := in.token(in.Parts[0]); got != want {
		t.Errorf("token %q, want %q", got, want)
	}
	if got := in.Metadata(); !strings.HasPrefix(got, "tf1 ") {
		t.Errorf("committed again as %q, from which another token would be made", got)
	}
}

func TestMetadataThatIsNoIntentIsRefused(t *testing.T) {
	t.Parallel()
	if in, err := ParseIntent("usage", 0, 10, ""); in != nil || err != nil {
		t.Errorf("nothing pending: %v, %v", in, err)
	}
	for _, metadata := range []string{
		" ", "tf1", "tf3 20 1000 0 202611:1", "20 1000 0 202611:1", "tf2 20 1000", "tf2 20 1000 0",
		"tf2 x 1000 0 202611:1", "tf2 20 x 0 202611:1", "tf2 20 1000 x 202611:1", "tf2 20 1000 0 202611", "tf1 20 1000 0 x:1",
		"tf1 20 1000 0 202611:", "tf1 20 1000 0 202611:xyz", "tf1 20 1000 0 202611:11111111111111111",
		"tf1 10 1000 0 202611:1", "tf1 9 1000 0 202611:1", "tf1 99999999999999999999 1000 0 202611:1", "somebody else's",
	} {
		if in, err := ParseIntent("usage", 0, 10, metadata); err == nil {
			t.Errorf("%q was read as %+v", metadata, in)
		}
	}
}

func FuzzParseIntent(f *testing.F) {
	f.Add("tf2 20 1000 0 202611:756517a24d58d093 202609:b869463077a7bb20")
	f.Add("tf1 20 1000 2000 202611:1")
	f.Add(" ")
	f.Fuzz(func(t *testing.T, metadata string) {
		in, err := ParseIntent("usage", 0, 10, metadata)
		if err != nil || in == nil {
			return
		}
		back, err := ParseIntent("usage", 0, 10, in.Metadata())
		if err != nil || !reflect.DeepEqual(back, in) {
			t.Errorf("%q was read as %+v, and that written and read again as %+v, %v", metadata, in, back, err)
		}
	})
}
