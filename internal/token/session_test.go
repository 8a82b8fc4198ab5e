package token

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"
)

func sessionSet(t *testing.T, tokens map[string]string) *Set {
	t.Helper()
	var entries []string
	for name, token := range tokens {
		entries = append(entries, fmt.Sprintf(`{"name":%q,"sha256":"%x","companies":"*"}`, name, sha256.Sum256([]byte(token))))
	}
	set, err := Parse([]byte("[" + strings.Join(entries, ",") + "]"))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestASessionStandsForItsTokenAndNothingElse(t *testing.T) {
	t.Parallel()
	const ann, bob = "ann's token, long enough", "bob's token, long enough"
	set := sessionSet(t, map[string]string{"ann.a": ann, "bob": bob})
	now := time.Unix(1_800_000_000, 0)
	s := set.Session(ann, now.Add(time.Hour))
	if strings.Contains(s, "token") || set.Session("another", now) != "" {
		t.Errorf("the session is %q", s)
	}
	if g, ok := set.FindSession(s, now); !ok || g.Name != "ann.a" {
		t.Errorf("%v, %v", g, ok)
	}
	if _, ok := set.Find(s); ok {
		t.Error("a session is taken for a token")
	}
	// Another instance with the same file knows it.
	if g, ok := sessionSet(t, map[string]string{"ann.a": ann}).FindSession(s, now); !ok || g.Name != "ann.a" {
		t.Errorf("%v, %v", g, ok)
	}
	part := strings.Split(s, ".")
	other := strings.Split(set.Session(bob, now.Add(time.Hour)), ".")
	for what, wrong := range map[string]string{
		"nothing":             "",
		"points":              "..",
		"no base64":           "!." + part[1] + "." + part[2],
		"another name":        other[0] + "." + part[1] + "." + part[2],
		"another MAC":         part[0] + "." + part[1] + "." + other[2],
		"no MAC":              part[0] + "." + part[1] + ".",
		"a later end":         part[0] + ".1900000000." + part[2],
		"no end":              part[0] + ".x." + part[2],
		"the token":           ann,
		"a changed last byte": s[:len(s)-2] + "AA",
		"more behind it":      s + ".x",
	} {
		if g, ok := set.FindSession(wrong, now); ok {
			t.Errorf("%s: %q is taken for %v", what, wrong, g)
		}
	}
	if _, ok := set.FindSession(s, now.Add(time.Hour)); ok {
		t.Error("it has not ended")
	}
	// The token was taken out of the file, or another one has its name now.
	for _, set := range []*Set{sessionSet(t, map[string]string{"bob": bob}), sessionSet(t, map[string]string{"ann.a": bob})} {
		if g, ok := set.FindSession(s, now); ok {
			t.Errorf("it stands for %v", g)
		}
	}
}
