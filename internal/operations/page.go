package operations

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"tenantflow/internal/health"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string

	style = strings.TrimSpace(pageCSS)
	pages = template.Must(template.New("").Funcs(template.FuncMap{
		"stamp": func(t time.Time) string { return t.Format(time.RFC3339) }, "clock": func(t time.Time) string { return t.Format("2006-01-02 15:04:05") },
		"ago": ago, "number": number, "ageOf": func(s *float64) string { return age(math.Floor(*s)) }, "ageIsNow": func(s *float64) bool { return *s == 0 },
		"lagAge": lagAge, "ms": ms, "partMark": partMark, "storeMark": storeMark, "taskMark": taskMark,
		"good": func(s string) mark { return mark{"good", "✓", s} }, "bad": func(s string) mark { return mark{"bad", "✕", s} },
		"ledgerOf": ledgerOf, "lagSpark": lagSpark, "latencySpark": latencySpark, "counts": counts, "differences": counts, "join": func(s []string) string { return strings.Join(s, ", ") },
	}).Parse(strings.ReplaceAll(pageHTML, "STYLE", style)))
)

// ContentSecurityPolicy is the header that both pages are to be served with: nothing is loaded, nothing runs, and the only style is their own.
func ContentSecurityPolicy() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}

// A View is how a caller wants to see the page.
type View struct {
	Refresh  int    // seconds between two loads; 0: it is not loaded again
	Open     string // the consumer whose partitions are shown
	SignedIn bool   // there is something to sign out of
}

// DefaultRefresh is how often the page is loaded again, in seconds.
const DefaultRefresh = 10

// URL is the address of the view with one parameter changed.
func (v View) URL(name, value string) string {
	q := url.Values{}
	if v.Refresh != DefaultRefresh {
		q.Set("refresh", strconv.Itoa(v.Refresh))
	}
	if v.Open != "" {
		q.Set("open", v.Open)
	}
	q.Set(name, value)
	if value == "" || name == "refresh" && value == strconv.Itoa(DefaultRefresh) {
		q.Del(name)
	}
	if len(q) == 0 {
		return "/"
	}
	return "/?" + q.Encode()
}

// WritePage writes the page.
func WritePage(w io.Writer, r *Report, v View) error {
	return pages.ExecuteTemplate(w, "page", struct {
		Report *Report
		View   View
	}{r, v})
}

// WriteSignIn writes the page that asks for a token. Refused says what was wrong with the one before; empty: there was none.
func WriteSignIn(w io.Writer, refused string) error {
	return pages.ExecuteTemplate(w, "sign-in", struct{ Refused string }{refused})
}

// A mark is a state as it is shown: never by its colour alone.
type mark struct{ Class, Sign, Words string }

func partMark(p Part) mark {
	switch health.State(p.State) {
	case health.Ready:
		return mark{"good", "✓", p.Words}
	case health.Starting:
		return mark{"quiet", "…", p.Words}
	case health.Failing:
		return mark{"warn", "!", p.Words}
	case health.Stopped, health.Stopping:
		return mark{"bad", "✕", p.Words}
	}
	return mark{"quiet", "–", p.Words}
}

func storeMark(p Panel[Store]) mark {
	switch {
	case p.Data.State == Unset:
		return mark{"quiet", "–", "no address is set here"}
	case p.answered():
		return mark{"bad", "✕", "can't be used"}
	case p.Data.State == Down || p.Problem != "":
		return mark{"bad", "✕", "does not answer"}
	case p.Data.State == Up:
		return mark{"good", "✓", "answers"}
	}
	return mark{"quiet", "…", "not asked yet"}
}

func taskMark(t Task) mark {
	switch t.State {
	case "failed":
		return mark{"bad", "✕", t.State}
	case "done":
		return mark{"good", "✓", t.State}
	case "running":
		return mark{"good", "▸", t.State}
	}
	return mark{"quiet", "–", t.State}
}

// ago is how long something is past.
func ago(now, at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return age(math.Floor(max(0, now.Sub(at).Seconds())))
}

func lagAge(s *float64) string {
	if *s == 0 {
		return "0 s"
	}
	return age(*s)
}

func ms(v *float64) string {
	if *v < 10 {
		return fmt.Sprintf("%.1f ms", *v)
	}
	return fmt.Sprintf("%.0f ms", *v)
}

// number is an integer in groups of three digits.
func number(v any) string {
	text := fmt.Sprint(v)
	sign := ""
	if strings.HasPrefix(text, "-") {
		sign, text = "-", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return sign + text
}

// counts are what was counted, the largest first.
func counts(of map[string]int64) []string {
	names := slices.SortedFunc(maps.Keys(of), func(a, b string) int {
		if of[a] != of[b] {
			return int(min(1, max(-1, of[b]-of[a])))
		}
		return strings.Compare(a, b)
	})
	all := make([]string, 0, len(names))
	for _, name := range names {
		if of[name] != 0 {
			all = append(all, name+" "+number(of[name]))
		}
	}
	return all
}
