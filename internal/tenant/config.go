package tenant

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tenantflow/internal/tier"
)

// maxConfig bounds a company's configuration, in bytes of JSON. It is cached, and published whole with every change.
const maxConfig = 64 << 10

// decided are the fields of a configuration that the tier decides. reserved are names under which readers find something else.
var (
	decided  = []string{"company_id", "subscription_tier", "max_users", "features_enabled", "support_level"} //nolint:gochecknoglobals // a constant table
	reserved = []string{"version", "cached_at", "cached_from"}                                               //nolint:gochecknoglobals // a constant table
	email    = regexp.MustCompile(`^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+$`)
)

// newConfig is the configuration of a company that registers with the given one. What the tier decides may be said, if it is said
// rightly.
func newConfig(asked json.RawMessage, company, billingEmail, tierName string, limits tier.Limits, support string) (json.RawMessage, error) {
	settings, err := object(asked)
	if err != nil {
		return nil, err
	}
	base := map[string]any{"billing_email": billingEmail}
	decide(base, company, tierName, limits, support)
	text, err := marshal(base)
	if err != nil {
		return nil, err
	}
	whole, err := object(text)
	if err != nil {
		return nil, err
	}
	for name, value := range settings {
		if own, ok := whole[name]; ok && slices.Contains(append([]string{"billing_email"}, decided...), name) {
			is, err := marshal(own)
			if err != nil {
				return nil, err
			}
			if asked, err := marshal(value); err != nil || !bytes.Equal(is, asked) {
				return nil, fmt.Errorf("%s is decided by the tier or said elsewhere, and is %s", name, is)
			}
			delete(settings, name)
		}
	}
	if err := checkNames(settings); err != nil {
		return nil, err
	}
	return merged(whole, settings, 0)
}

// patchConfig applies a merge patch (RFC 7396) of the company's own making.
func patchConfig(config, patch json.RawMessage) (json.RawMessage, error) {
	whole, err := object(config)
	if err != nil {
		return nil, err
	}
	changes, err := object(patch)
	if err != nil {
		return nil, err
	}
	if err := checkNames(changes); err != nil {
		return nil, err
	}
	return merged(whole, changes, len(config))
}

// checkNames refuses names that are not the company's to set, and those that differ from them in case only: many readers take
// them for the same.
func checkNames(changes map[string]any) error {
	for name := range changes {
		for _, own := range decided {
			if strings.EqualFold(name, own) {
				return fmt.Errorf("%s is decided by the tier and can't be set", name)
			}
		}
		for _, own := range reserved {
			if strings.EqualFold(name, own) {
				return fmt.Errorf("%s is a reserved name", name)
			}
		}
		if name != "billing_email" && strings.EqualFold(name, "billing_email") {
			return fmt.Errorf("%s must be written billing_email", name)
		}
	}
	return nil
}

// merged is the patched configuration. What is checked is the patch: the rest was taken before, and Postgres may have written it in another
// way since. So nothing that is stored, of whatever size, keeps a company from changing its configuration to something smaller.
func merged(whole, patch map[string]any, before int) (json.RawMessage, error) {
	if address, said := patch["billing_email"]; said {
		text, ok := address.(string)
		if !ok || len(text) > 320 || !email.MatchString(text) {
			return nil, errors.New("billing_email must be an email address")
		}
	}
	grows, err := storable(patch)
	if err != nil {
		return nil, err
	}
	text, err := marshal(mergePatch(whole, patch))
	if err != nil {
		return nil, err
	}
	if size := len(text) + grows; size > maxConfig && size > before {
		return nil, fmt.Errorf("the configuration would have %d bytes, more than %d", size, maxConfig)
	}
	return text, nil
}

// mergePatch is the algorithm of RFC 7396, section 2.
func mergePatch(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	whole, ok := target.(map[string]any)
	if !ok {
		whole = map[string]any{}
	}
	for name, value := range changes {
		if value == nil {
			delete(whole, name)
		} else {
			whole[name] = mergePatch(whole[name], value)
		}
	}
	return whole
}

// withTier is a configuration with what a tier decides.
func withTier(config json.RawMessage, company, tierName string, limits tier.Limits, support string) (json.RawMessage, error) {
	whole, err := object(config)
	if err != nil {
		return nil, fmt.Errorf("read the configuration of company %s: %w", company, err)
	}
	decide(whole, company, tierName, limits, support)
	return marshal(whole)
}

func decide(config map[string]any, company, tierName string, limits tier.Limits, support string) {
	config["company_id"], config["subscription_tier"], config["max_users"] = company, tierName, limits.MaxUsers
	config["features_enabled"], config["support_level"] = limits.Features, support
}

// object reads a JSON object, numbers as they are written. Nothing is an empty one.
func object(text json.RawMessage) (map[string]any, error) {
	whole := map[string]any{}
	if len(text) == 0 {
		return whole, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&whole); err != nil {
		return nil, fmt.Errorf("it is no JSON object: %w", err)
	}
	return whole, nil
}

// storable refuses numbers that neither Postgres nor most readers can hold. It returns by how many bytes a value grows in Postgres,
// which writes numbers without an exponent.
func storable(value any) (grows int, err error) {
	each := func(value any) error {
		more, err := storable(value)
		grows += more
		return err
	}
	switch v := value.(type) {
	case json.Number:
		f, err := v.Float64()
		exponent := exponentOf(string(v))
		if err != nil || math.IsInf(f, 0) || len(v) > 100 || exponent > maxExponent {
			return 0, fmt.Errorf("the number %.40s can't be stored", v)
		}
		return exponent, nil
	case map[string]any:
		for _, member := range v {
			if err := each(member); err != nil {
				return 0, err
			}
		}
	case []any:
		for _, element := range v {
			if err := each(element); err != nil {
				return 0, err
			}
		}
	}
	return grows, nil
}

// maxExponent is that of the numbers most readers can hold.
const maxExponent = 400

// exponentOf is the exponent that a number is written with, without its sign: as many digits more it may have when it is written out.
func exponentOf(number string) int {
	_, written, found := strings.Cut(strings.ToLower(number), "e")
	if !found {
		return 0
	}
	exponent, err := strconv.Atoi(strings.TrimLeft(written, "+-"))
	if err != nil {
		return math.MaxInt32 // too many digits
	}
	return exponent
}

// marshal writes JSON with sorted names and without HTML's escapes.
func marshal(value any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return nil, fmt.Errorf("write a configuration: %w", err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}
