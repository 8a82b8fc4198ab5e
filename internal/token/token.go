// Package token authenticates callers of the HTTP API by bearer token, and says which companies each may ask about.
//
//	tokens, err := token.Open(cfg.APITokensFile, log) // err names all that is wrong with the file
//	grant, ok := tokens.Find("the text behind Bearer")
//	if ok && grant.Allows("acme") { ... }
//
// The file holds hashes, never tokens. A token is a long random text, made by a machine: it can't be guessed from
// its SHA-256, so a plain hash is enough, and the slow salted ones that people's passwords need would cost a
// tenth of a second a request. For the same reason a look-up by hash in a map needs no constant time: what its timing
// tells is how a stored hash compares with the hash of what was sent, and the sender can't choose that hash.
package token

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"tenantflow/events"
)

// A Grant is what the bearer of a token may do. It does not change.
type Grant struct {
	// Name is what the file calls the token. It may be logged.
	Name string

	all       bool
	rights    []Right
	companies map[string]struct{}
	ids       []string // of companies, sorted
	key       string
}

// A Right is a kind of request.
type Right string

// The rights. A token without any named in the file may read.
const (
	Read    Right = "read"    // ask about users and companies
	Reserve Right = "reserve" // hold a part of a user's quota, and release it
)

// All is the grant of every right for every company, for callers that are let in without a token.
func All(name string) *Grant {
	return &Grant{Name: name, all: true, rights: []Right{Read, Reserve}}
}

// May says whether the bearer has a right.
func (g *Grant) May(right Right) bool { return slices.Contains(g.rights, right) }

// Allows says whether the bearer may ask about a company.
func (g *Grant) Allows(company string) bool {
	if g.all {
		return true
	}
	_, ok := g.companies[company]
	return ok
}

// Everything reports whether the bearer may ask about every company.
func (g *Grant) Everything() bool { return g.all }

// Companies lists the companies the bearer may ask about, where that is not every one. It must not be changed.
func (g *Grant) Companies() []string { return g.ids }

// Key is the same for grants to ask about the same companies only.
func (g *Grant) Key() string { return g.key }

// A Set is the tokens of one file. It does not change, and may be used by many goroutines at once.
type Set struct {
	grants map[[sha256.Size]byte]*Grant
}

// Find returns the grant of a token, given as its bearer sends it.
func (s *Set) Find(bearer string) (*Grant, bool) {
	g, ok := s.grants[sha256.Sum256([]byte(bearer))]
	return g, ok
}

// Len is the number of tokens.
func (s *Set) Len() int { return len(s.grants) }

// Problems is everything that is wrong with a file of tokens. It says where, and never repeats what stands there: a
// token might have been put into the file by mistake.
type Problems []string

func (p Problems) Error() string { return strings.Join(p, "; ") }

// everyCompany is the scope of a token that may ask about all.
const everyCompany = "*"

// Parse reads a file of tokens: a JSON list of
//
//	{"name": "data-bridge", "sha256": "<64 hex digits: the SHA-256 of the token>", "companies": "*"}
//
// where companies is "*" or a list of company ids. A member "rights" may be there as well, a list of "read" and "reserve"; without it the token
// may read. Nothing else may be missing, repeated or unknown. The error is a Problems.
func Parse(text []byte) (*Set, error) {
	entries, err := listOf(text)
	if err != nil {
		return nil, Problems{err.Error()}
	}
	p := parser{set: &Set{grants: make(map[[sha256.Size]byte]*Grant, len(entries))}, names: map[string]int{}, hashes: map[[sha256.Size]byte]int{}}
	for i, entry := range entries {
		p.entry(i+1, entry)
	}
	if len(p.problems) > 0 {
		return nil, p.problems
	}
	return p.set, nil
}

type parser struct {
	set      *Set
	names    map[string]int // where each was first, from 1
	hashes   map[[sha256.Size]byte]int
	problems Problems
}

func (p *parser) wrong(number int, format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf("entry %d: ", number)+fmt.Sprintf(format, args...))
}

func (p *parser) entry(number int, text []byte) {
	members, err := membersOf(text)
	if err != nil {
		p.wrong(number, "%v", err)
		return
	}
	known := []string{"name", "sha256", "companies"}
	unknown := 0
	for name := range members {
		if name != "rights" && !slices.Contains(known, name) {
			unknown++
		}
	}
	if unknown > 0 {
		p.wrong(number, "it has %d members beside name, sha256, companies and rights", unknown)
	}
	missing := false
	for _, name := range known {
		if members[name] == nil {
			p.wrong(number, "%s is missing", name)
			missing = true
		}
	}
	if missing {
		return
	}
	grant := &Grant{}
	hash, ok := p.hash(number, members["sha256"])
	ok = p.name(number, members["name"], grant) && ok
	ok = p.rights(number, members["rights"], grant) && ok
	if p.scope(number, members["companies"], grant) && ok {
		p.set.grants[hash] = grant
	}
}

func (p *parser) name(number int, text []byte, grant *Grant) bool {
	name, ok := textOf(text)
	if !ok || !isName(name) {
		p.wrong(number, "name is no text of 1 to 50 letters, digits, '.', '_', '-'")
		return false
	}
	if first, there := p.names[name]; there {
		p.wrong(number, "entry %d has the same name", first)
		return false
	}
	p.names[name] = number
	grant.Name = name
	return true
}

func (p *parser) hash(number int, text []byte) (hash [sha256.Size]byte, ok bool) {
	digits, ok := textOf(text)
	if !ok || hex.DecodedLen(len(digits)) != len(hash) || len(digits)%2 != 0 {
		p.wrong(number, "sha256 is no text of 64 hexadecimal digits; it must be the hash of the token, not the token")
		return hash, false
	}
	if _, err := hex.Decode(hash[:], []byte(digits)); err != nil {
		p.wrong(number, "sha256 is no text of 64 hexadecimal digits; it must be the hash of the token, not the token")
		return hash, false
	}
	// What a script with an empty variable writes. A client that sends such a "token" knows no secret.
	for _, nothing := range []string{"", "\n"} {
		if hash == sha256.Sum256([]byte(nothing)) {
			p.wrong(number, "sha256 is the hash of an empty token")
			return hash, false
		}
	}
	if first, there := p.hashes[hash]; there {
		p.wrong(number, "entry %d has the same sha256", first)
		return hash, false
	}
	p.hashes[hash] = number
	return hash, true
}

// rights reads the list of rights; there need not be one.
func (p *parser) rights(number int, text []byte, grant *Grant) bool {
	if text == nil {
		grant.rights = []Right{Read}
		return true
	}
	list, err := listOf(text)
	good := err == nil && len(list) > 0
	for _, raw := range list {
		name, ok := textOf(raw)
		right := Right(name)
		good = good && ok && (right == Read || right == Reserve) && !slices.Contains(grant.rights, right)
		grant.rights = append(grant.rights, right)
	}
	if !good {
		p.wrong(number, `rights is no list of "read" and "reserve", each at most once and one at least`)
	}
	return good
}

func (p *parser) scope(number int, text []byte, grant *Grant) bool {
	if one, ok := textOf(text); ok {
		if one != everyCompany {
			p.wrong(number, `companies is a text other than "*"; name companies in a list`)
			return false
		}
		grant.all = true
		return true
	}
	ids, err := listOf(text)
	if err != nil || len(ids) == 0 {
		p.wrong(number, `companies is neither "*" nor a list of company ids`)
		return false
	}
	grant.companies = make(map[string]struct{}, len(ids))
	good := true
	for i, raw := range ids {
		id, ok := textOf(raw)
		if !ok || !events.ValidID(id) {
			p.wrong(number, "company %d is no id: 1 to 50 letters, digits, '_', '-'", i+1)
			good = false
			continue
		}
		if _, twice := grant.companies[id]; twice {
			p.wrong(number, "company %d is there twice", i+1)
			good = false
		}
		grant.companies[id] = struct{}{}
		grant.ids = append(grant.ids, id)
	}
	slices.Sort(grant.ids)
	sum := sha256.Sum256([]byte(strings.Join(grant.ids, "\n")))
	grant.key = string(sum[:])
	return good
}

func isName(s string) bool {
	if len(s) == 0 || len(s) > 50 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}
