package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Problem is one thing that is wrong with the configuration.
type Problem struct {
	Setting string `json:"setting"` // the environment variable it is about
	Wrong   string `json:"problem"` // what is wrong with it
	Do      string `json:"remedy"`  // what to do
}

func (p Problem) String() string { return p.Setting + ": " + p.Wrong + "; " + p.Do }

// Problems is the error of a configuration that can't be used: everything that is wrong with it, in the order in
// which the settings are declared, names that are no setting last.
type Problems []Problem

func (p Problems) Error() string {
	var b strings.Builder
	b.WriteString("the configuration has ")
	if len(p) == 1 {
		b.WriteString("1 problem:")
	} else {
		b.WriteString(strconv.Itoa(len(p)) + " problems:")
	}
	for _, one := range p {
		b.WriteString("\n  " + one.String())
	}
	return b.String()
}

// inOrder sorts problems by the declaration of what they are about.
func inOrder(problems []Problem) Problems {
	all := declarations()
	place := make(map[string]int, len(all))
	for i, d := range all {
		place[d.Name] = i
	}
	at := func(p Problem) int {
		if i, ok := place[p.Setting]; ok {
			return i
		}
		if i, ok := place[strings.TrimSuffix(p.Setting, fileSuffix)]; ok {
			return i
		}
		return len(all)
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		if d := at(a) - at(b); d != 0 {
			return d
		}
		return strings.Compare(a.Setting, b.Setting)
	})
	return problems
}

// quote shows a value in a message, cut where it is long.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strconv.Quote(s)
}

// Invalid is an error of what a person has written, on the command line or in a file that a setting names: trying again does not help.
type Invalid struct{ Err error }

func (e Invalid) Error() string { return e.Err.Error() }
func (e Invalid) Unwrap() error { return e.Err }

// Invalidf makes an [Invalid] that says what is wrong.
func Invalidf(format string, args ...any) error { return Invalid{fmt.Errorf(format, args...)} }
