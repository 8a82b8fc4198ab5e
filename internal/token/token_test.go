package token

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"
)

// hashOf is what `sha256sum` prints for a token.
func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func TestATokenSeesTheCompaniesOfItsScopeOnly(t *testing.T) {
	t.Parallel()
	set, err := Parse([]byte(`[
		{"name": "bridge", "sha256": "` + hashOf("secret-of-the-bridge") + `", "companies": "*"},
		{"name": "acme's.not", "sha256": "` + hashOf("x") + `", "companies": "*"}
	]`))
	if err == nil {
		t.Errorf("a name with a quote is taken: %v", set)
	}
	set, err = Parse([]byte(`[
		{"name": "bridge", "sha256": "` + hashOf("secret-of-the-bridge") + `", "companies": "*"},
		{"name": "acme.reports-1", "sha256": "` + strings.ToUpper(hashOf("secret-of-acme")) + `", "companies": ["acme", "acme_2"]}
	]`))
	if err != nil {
		t.Fatal(err)
	}
	all, ok := set.Find("secret-of-the-bridge")
	if !ok || all.Name != "bridge" || !all.Allows("acme") || !all.Allows("globex") {
		t.Errorf("the token for all: %+v, %t", all, ok)
	}
	two, ok := set.Find("secret-of-acme")
	if !ok || two.Name != "acme.reports-1" || !two.Allows("acme") || !two.Allows("acme_2") {
		t.Errorf("the token for two: %+v, %t", two, ok)
	}
	for _, other := range []string{"globex", "", "*", "ACME", "acme ", "acme_"} {
		if two.Allows(other) {
			t.Errorf("the token for acme and acme_2 sees %q", other)
		}
	}
	for _, unknown := range []string{"", "secret", "secret-of-acme ", hashOf("secret-of-acme"), "*", "\x00"} {
		if g, ok := set.Find(unknown); ok {
			t.Errorf("%q is taken for a token: %+v", unknown, g)
		}
	}
	if !All("loopback").Allows("anything") || set.Len() != 2 {
		t.Errorf("%d tokens", set.Len())
	}
}

func TestRights_ATokenWithoutAnyMayRead(t *testing.T) {
	t.Parallel()
	file := func(rights string) string {
		return `[{"name": "a", "sha256": "` + hashOf("x") + `", "companies": "*"` + rights + `}]`
	}
	for rights, want := range map[string][2]bool{
		"":                                {true, false},
		`, "rights": ["read"]`:            {true, false},
		`, "rights": ["reserve"]`:         {false, true},
		`, "rights": ["reserve", "read"]`: {true, true},
	} {
		set, err := Parse([]byte(file(rights)))
		if err != nil {
			t.Fatal(err)
		}
		if g, _ := set.Find("x"); g.May(Read) != want[0] || g.May(Reserve) != want[1] {
			t.Errorf("%s: read %t, reserve %t, want %v", rights, g.May(Read), g.May(Reserve), want)
		}
	}
	for _, rights := range []string{`[]`, `null`, `"read"`, `["write"]`, `["read", "read"]`, `[1]`, `{}`} {
		if _, err := Parse([]byte(file(`, "rights": ` + rights))); err == nil || !strings.Contains(err.Error(), "entry 1: rights is no list") {
			t.Errorf("%s: %v", rights, err)
		}
	}
	if g := All("loopback"); !g.May(Read) || !g.May(Reserve) {
		t.Error("a caller on this machine lacks a right")
	}
}

func TestAnEmptyListLetsNobodyIn(t *testing.T) {
	t.Parallel()
	set, err := Parse([]byte(" [] "))
	if err != nil || set.Len() != 0 {
		t.Fatalf("%v, %v", set, err)
	}
	if _, ok := set.Find(""); ok {
		t.Error("the empty token is let in")
	}
}

func TestEverythingThatIsWrongWithAFileIsSaidAtOnceAndNothingInItRepeated(t *testing.T) {
	t.Parallel()
	const secret = "3q9Zk-this-is-a-token-0aX" // put in place of its hash, as it happens
	text := `[
		{"name": "a", "sha256": "` + secret + `", "companies": "*"},
		{"name": "` + secret + `!", "sha256": "` + hashOf("1") + `", "companies": ["acme", "` + secret + `?", "acme"]},
		{"name": "a", "sha256": "` + hashOf("1") + `", "companies": []},
		{"name": "b", "sha256": "` + hashOf("") + `", "companies": "` + secret + `"},
		{"Name": "b", "` + secret + `": 1},
		{"name": "c", "sha256": 12345678, "companies": {"x": "` + secret + `"}},
		{"name": "d", "name": "e", "sha256": "` + hashOf("5") + `", "companies": "*"},
		"` + secret + `",
		{"name": null, "sha256": null, "companies": null}
	]`
	_, err := Parse([]byte(text))
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{
		"entry 1: sha256 is no text of 64 hexadecimal digits",
		"entry 2: name is no text", "entry 2: company 2 is no id", "entry 2: company 3 is there twice",
		"entry 3: entry 1 has the same name", "entry 3: entry 2 has the same sha256", `entry 3: companies is neither "*" nor a list`,
		"entry 4: sha256 is the hash of an empty token", `entry 4: companies is a text other than "*"`,
		"entry 5: it has 2 members beside", "entry 5: name is missing", "entry 5: sha256 is missing", "entry 5: companies is missing",
		"entry 6: sha256 is no text", `entry 6: companies is neither`,
		"entry 7: it has two members of one name", "entry 8: it is no JSON object", "entry 9: sha256 is no text",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if strings.Contains(err.Error(), secret[:5]) || strings.Contains(err.Error(), "12345678") {
		t.Errorf("it repeats what stands in the file: %v", err)
	}
}

func TestAFileThatIsNoListOfJSONIsRefused(t *testing.T) {
	t.Parallel()
	const entry = `{"name": "a", "sha256": "ab", "companies": "*"}`
	for _, text := range []string{"", "null", "{}", entry, "[" + entry, "[" + entry + "] []", `"*"`, "[,]", "\xef\xbb\xbf[]"} {
		if set, err := Parse([]byte(text)); err == nil {
			t.Errorf("%q is taken: %d tokens", text, set.Len())
		}
	}
}

func TestTheExampleOfTheDocsIsAValidFile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "```json\n[")
	example, _, _ = strings.Cut("["+example, "```")
	if set, err := Parse([]byte(example)); err != nil || set.Len() != 2 {
		t.Errorf("%v: %s", err, example)
	}
}

func FuzzParseNeitherPanicsNorRepeatsAToken(f *testing.F) {
	f.Add([]byte(`[{"name": "a", "sha256": "` + hashOf("1") + `", "companies": ["acme"]}]`))
	f.Add([]byte(`[{"name": "a", "sha256": "", "companies": "*"}, null]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := Parse(text)
		if (set == nil) == (err == nil) {
			t.Errorf("%v and %v", set, err)
		}
	})
}
