package yearmodel

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"
)

// A Difference is where an answer is not the model's.
type Difference struct {
	Company, Field, Got, Want string
}

func (d Difference) String() string {
	return fmt.Sprintf("%s, %s: got %s, want %s", d.Company, d.Field, d.Got, d.Want)
}

// absent stands for a value that is not there.
const absent = "nothing"

// Compare holds the JSON of an answer to a question, as of a time, against the model's, member by member and to the last digit. It returns
// how many members it looked at as well.
func (m *Model) Compare(a Analysis, c *Company, at time.Time, answer []byte) (looked int, found []Difference) {
	differ := func(field, got, want string) {
		found = append(found, Difference{c.ID, a.Name + " " + field, got, want})
	}
	want := a.answer(m, c, at)
	text, err := json.Marshal(want)
	if err != nil {
		differ("", "", err.Error())
		return 0, found
	}
	model, err := members(text)
	if err != nil {
		differ("", "", err.Error())
		return 0, found
	}
	service, err := members(answer)
	if err != nil {
		differ("", string(answer), err.Error())
		return 0, found
	}
	if r, is := want.(*revenueAnswer); is {
		differForecast(r.Forecast, model, service, differ)
	}
	delete(service, "analysis_date")
	all := maps.Clone(model)
	maps.Copy(all, service)
	for _, field := range slices.Sorted(maps.Keys(all)) {
		got, want := valueOf(service, field), valueOf(model, field)
		looked++
		if got != want {
			differ(field, got, want)
		}
	}
	return looked, found
}

// ComparePlatform holds the JSON of the business metrics of all companies, as of a time, against the model's. What follows from the stores'
// state and not from the year (storage, latency, the health score) is left to others; that nothing leaks and all comply is not.
func (m *Model) ComparePlatform(at time.Time, answer []byte) (looked int, found []Difference) {
	differ := func(field, got, want string) {
		found = append(found, Difference{"all companies", "business-metrics " + field, got, want})
	}
	text, err := json.Marshal(m.platform(at))
	if err != nil {
		differ("", "", err.Error())
		return 0, found
	}
	model, err := keyed(text)
	if err != nil {
		differ("", "", err.Error())
		return 0, found
	}
	service, err := keyed(answer)
	if err != nil {
		differ("", string(answer), err.Error())
		return 0, found
	}
	model["isolation.leaks"], model["retention_compliance.percentage"] = "0", "100.00"
	for _, field := range slices.Sorted(maps.Keys(model)) {
		looked++
		if got := valueOf(service, field); got != model[field] {
			differ(field, got, model[field])
		}
	}
	for _, field := range slices.Sorted(maps.Keys(service)) {
		if _, known := model[field]; !known && ofThePlatform(field) {
			differ(field, service[field], absent)
		}
	}
	return looked, found
}

// ofThePlatform reports whether the model has a say about a member of the business metrics.
func ofThePlatform(field string) bool {
	if strings.HasSuffix(field, ".reason") {
		return false
	}
	for _, of := range []string{"tiers.", "arpu.", "conversion.", "lifetime_value.", "churn.", "months."} {
		if strings.HasPrefix(field, of) {
			return true
		}
	}
	return false
}

func valueOf(members map[string]string, field string) string {
	if value, there := members[field]; there {
		return value
	}
	return absent
}

// differForecast holds what is known of a forecast against the one that was made, and takes it out of the members.
func differForecast(want *forecastAnswer, model, service map[string]string, differ func(field, got, want string)) {
	reason := service["forecast_reason"]
	delete(service, "forecast_reason")
	delete(service, "forecast.method")
	switch {
	case want == nil && reason == "":
		differ("forecast_reason", absent, "a reason")
	case want != nil && reason != "":
		differ("forecast_reason", reason, absent)
	}
	if want == nil {
		return
	}
	for i, next := range want.Months {
		at := map[string]*big.Rat{}
		for _, end := range []string{"low", "revenue", "high"} {
			field := fmt.Sprintf("forecast.months[%d].%s", i, end)
			got := valueOf(service, field)
			delete(service, field)
			value, ok := new(big.Rat).SetString(got)
			switch {
			case !ok:
				differ(field, got, "a number")
			case next.Value != "" && got != string(next.Value):
				differ(field, got, string(next.Value))
			case value.Cmp(next.Least) < 0:
				differ(field, got, "not below "+next.Least.FloatString(2))
			}
			at[end] = value
		}
		if at["low"] == nil || at["revenue"] == nil || at["high"] == nil {
			continue
		}
		if at["low"].Cmp(at["revenue"]) > 0 || at["revenue"].Cmp(at["high"]) > 0 {
			differ(fmt.Sprintf("forecast.months[%d]", i), fmt.Sprintf("%v", at), "low, revenue and high in this order")
		}
	}
}

// members lists every value of a JSON text by its path. Lists and objects without members have a value of their own.
func members(text []byte) (map[string]string, error) { return listed(text, false) }

// keyed does so with objects in lists by their keys, as keyOf has them.
func keyed(text []byte) (map[string]string, error) { return listed(text, true) }

func listed(text []byte, byKey bool) (map[string]string, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, fmt.Errorf("read an answer: %w", err)
	}
	found := map[string]string{}
	list(found, "", value, byKey)
	return found, nil
}

func list(found map[string]string, path string, value any, byKey bool) {
	switch v := value.(type) {
	case map[string]any:
		if len(v) == 0 {
			found[path] = "{}"
		}
		for name, inner := range v {
			under := name
			if path != "" {
				under = path + "." + name
			}
			list(found, under, inner, byKey)
		}
	case []any:
		if len(v) == 0 {
			found[path] = "[]"
		}
		for i, inner := range v {
			under := fmt.Sprintf("%s[%d]", path, i)
			if object, is := inner.(map[string]any); is && byKey && keyOf(object) != "" {
				under = path + "." + keyOf(object)
			}
			list(found, under, inner, byKey)
		}
	case json.Number:
		found[path] = v.String()
	case nil:
		found[path] = "null"
	default:
		found[path] = fmt.Sprint(v)
	}
}
