package events

import (
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// A wording puts violations of a schema into words.
type wording struct {
	data    any
	printer *message.Printer

	// values says to print the values that are wrong and all names. Otherwise only what can't be personal: numbers and times, and the
	// names that the schema has.
	values bool
	names  map[string]bool
}

// invalidData rejects data by its violations of its schema.
func invalidData(schema *jsonschema.Schema, invalid *jsonschema.ValidationError, data any) *Rejection {
	w := wording{data: data, printer: message.NewPrinter(language.English), names: map[string]bool{}}
	schemaNames(schema, w.names, map[*jsonschema.Schema]bool{})
	detail := w.describe(invalid)
	w.values = true
	return rejectValue(InvalidData, detail, w.describe(invalid))
}

// schemaNames collects the names of members that a schema gives.
func schemaNames(s *jsonschema.Schema, names map[string]bool, seen map[*jsonschema.Schema]bool) {
	if s == nil || seen[s] {
		return
	}
	seen[s] = true
	for name, member := range s.Properties {
		names[name] = true
		schemaNames(member, names, seen)
	}
	for _, part := range slices.Concat(s.AllOf, s.AnyOf, s.OneOf, []*jsonschema.Schema{s.Ref, s.Items2020}) {
		schemaNames(part, names, seen)
	}
}

// describe puts the first few violations into one line for a person.
func (w *wording) describe(invalid *jsonschema.ValidationError) string {
	const most = 3
	var lines []string
	more := 0
	var walk func(*jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		// The causes of these two are not to be told one by one.
		_, anyOf := e.ErrorKind.(*kind.AnyOf)
		name, isName := e.ErrorKind.(*kind.PropertyNames)
		if len(e.Causes) == 0 || anyOf || isName {
			if len(lines) == most {
				more++
				return
			}
			location := e.InstanceLocation
			if isName {
				// jsonschema 6.0.3 does not copy the location of this kind of error, and overwrites it with that of
				// what it looks at next.
				location, _ = holderOf(w.data, name.Property)
			}
			lines = append(lines, "at "+quoted(w.place(location))+": "+quoteControls(w.violation(e)))
			return
		}
		for _, cause := range e.Causes {
			walk(cause)
		}
	}
	walk(invalid)
	if more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "; ")
}

// place writes a location in the data. A name that the schema does not have is the sender's, and may be anything.
func (w *wording) place(location []string) string {
	if w.values {
		return "/" + strings.Join(location, "/")
	}
	shown := slices.Clone(location)
	value := w.data
	for i, name := range location {
		switch v := value.(type) {
		case []any:
			value = nil
			if at, err := strconv.Atoi(name); err == nil && at >= 0 && at < len(v) {
				value = v[at]
			}
		case map[string]any:
			value = v[name]
			if !w.names[name] {
				shown[i] = "*"
			}
		default:
			shown[i] = "*"
		}
	}
	return "/" + strings.Join(shown, "/")
}

// violation says what is wrong with one value.
func (w *wording) violation(e *jsonschema.ValidationError) string {
	switch k := e.ErrorKind.(type) {
	case *kind.AnyOf:
		// Of the forms that a value may have, one is usually of its type: what that one lacks is what to correct.
		var types, others []string
		for _, form := range e.Causes {
			for len(form.Causes) > 0 {
				form = form.Causes[0]
			}
			if _, ok := form.ErrorKind.(*kind.Type); ok {
				types = append(types, w.violation(form))
			} else {
				others = append(others, w.violation(form))
			}
		}
		if len(others) > 0 {
			types = others
		}
		return strings.Join(types, ", or ")
	case *kind.Minimum:
		return "minimum: got " + plain(k.Got) + ", want " + plain(k.Want)
	case *kind.Maximum:
		return "maximum: got " + plain(k.Got) + ", want " + plain(k.Want)
	case *kind.Type, *kind.Enum, *kind.Const, *kind.Required, *kind.MinLength, *kind.MaxLength, *kind.MultipleOf, *kind.MinItems, *kind.MaxItems,
		*kind.MinProperties, *kind.MaxProperties:
		// Their words have lengths, numbers and what the schema says.
	case *kind.Pattern:
		if !w.mayShow(e.InstanceLocation, k.Got) {
			return fmt.Sprintf("the text of %d characters does not match pattern '%s'", utf8.RuneCountInString(k.Got), k.Want)
		}
	case *kind.Format:
		if text, ok := k.Got.(string); !ok || !w.mayShow(e.InstanceLocation, text) {
			words := fmt.Sprintf("the text of %d characters is not valid %s", utf8.RuneCountInString(text), k.Want)
			if errors.Is(k.Err, errNoTimestamp) || errors.Is(k.Err, errFarTime) {
				words += ": " + k.Err.Error() // the library's own errors quote the text
			}
			return words
		}
	case *kind.PropertyNames:
		if !w.values {
			return fmt.Sprintf("a member has an invalid name, of %d characters", utf8.RuneCountInString(k.Property))
		}
	default:
		if !w.values {
			return strings.Join(e.ErrorKind.KeywordPath(), "/") + " failed"
		}
	}
	return e.ErrorKind.LocalizedString(w.printer)
}

// mayShow reports whether a text at a place may be printed: all may, or it is written like a number or a time, where such is expected.
func (w *wording) mayShow(location []string, text string) bool {
	if w.values {
		return true
	}
	if len(location) != 1 || !likeNumber(text) {
		return false
	}
	switch name := location[0]; name {
	case "revenue_attributed", "billing_period", "timestamp", "period_start", "period_end":
		return true
	default:
		return strings.HasSuffix(name, "_at")
	}
}

// likeNumber reports whether a text has only what numbers and times are written with.
func likeNumber(text string) bool {
	const most = 40
	return len(text) <= most && strings.Trim(text, "0123456789+-.:TtZzEe") == ""
}

// likeName reports whether a text is written like the name of a type or a content type.
func likeName(text string) bool {
	const most = 80
	return len(text) <= most && strings.IndexFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-/+;=", r)
	}) < 0
}

// quotedOr quotes a text that may be printed, and gives the size of any other.
func quotedOr(text string, may func(string) bool) string {
	if may(text) {
		return quoted(text)
	}
	return fmt.Sprintf("a text of %d bytes", len(text))
}

// plain writes a number with all its digits, unless they are very many: rounded, a bound may look like what exceeds it.
func plain(n *big.Rat) string {
	const most = 40
	digits, exact := n.FloatPrec()
	if text := n.FloatString(digits); exact && len(text) <= most {
		return text
	}
	f, _ := n.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// holderOf finds the first object, in the order of names, that has a member of this name.
func holderOf(value any, name string) (location []string, found bool) {
	switch v := value.(type) {
	case map[string]any:
		if _, ok := v[name]; ok {
			return nil, true
		}
		for _, member := range slices.Sorted(maps.Keys(v)) {
			if below, ok := holderOf(v[member], name); ok {
				return append([]string{member}, below...), true
			}
		}
	case []any:
		for i, item := range v {
			if below, ok := holderOf(item, name); ok {
				return append([]string{strconv.Itoa(i)}, below...), true
			}
		}
	}
	return nil, false
}
