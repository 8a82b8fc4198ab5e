package events

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// checkFixedPoint holds fixedPoint and tamed against big.Rat.
func checkFixedPoint(t interface {
	Helper()
	Errorf(string, ...any)
}, text string, decimals int) {
	t.Helper()
	if _, exponent := splitExponent([]byte(text)); exponent > 5000 || exponent < -5000 || len(text) > 5000 {
		return // too much for the reference
	}
	n, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Errorf("reference cannot read %q", text)
		return
	}
	short, ok := new(big.Rat).SetString(tamed(text))
	if !ok || short.Sign() != n.Sign() || short.IsInt() != n.IsInt() && short.Num().BitLen() < 3000 {
		t.Errorf("%q is tamed to %q", text, tamed(text))
	}
	scale := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(decimals)), nil))
	n.Mul(n, scale)
	floor := new(big.Int).Quo(n.Num(), n.Denom())
	rest := nothing
	switch left := new(big.Rat).Sub(n, new(big.Rat).SetInt(floor)); {
	case left.Cmp(big.NewRat(1, 2)) >= 0:
		rest = halfOrUp
	case left.Sign() > 0:
		rest = belowHalf
	}
	wantOK := n.Sign() >= 0 && floor.Cmp(big.NewInt(maxFixed)) <= 0
	value, gotRest, gotOK := fixedPoint([]byte(text), decimals)
	if gotOK != wantOK || gotOK && (value != floor.Int64() || gotRest != rest) {
		t.Errorf("%q with %d decimals: %d rest %d %v, want %d rest %d %v", text, decimals, value, gotRest, gotOK, floor, rest, wantOK)
	}
}

func TestDecimalsAreExact(t *testing.T) {
	t.Parallel()
	for _, odd := range oddValues() {
		if json.Valid([]byte(odd)) && (odd[0] == '-' || odd[0]-'0' <= 9) {
			for _, decimals := range []int{0, 3, 6} {
				checkFixedPoint(t, odd, decimals)
			}
		}
	}
	number := rapid.StringMatching(`-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?`)
	rapid.Check(t, func(t *rapid.T) {
		checkFixedPoint(t, number.Draw(t, "number"), rapid.SampledFrom([]int{0, 3, 6}).Draw(t, "decimals"))
	})
}

func TestNumbersThatSayNothingStayUntouched(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"12.50": "12.50", "-0": "-0", "1e2": "1e2", "1e999999999999999999999": "1e400", "-1e-999999999999": "-1e-400", "0e999999999": "0",
		"1" + strings.Repeat("0", 200): "1e200", strings.Repeat("9", 1000): "1e400",
		"0." + strings.Repeat("3", 200): strings.Repeat("3", 100) + "1e-101",
	} {
		if got := tamed(text); got != want {
			t.Errorf("%.50s is tamed to %s, want %s", text, got, want)
		}
	}
}

func FuzzFixedPoint(f *testing.F) {
	for _, odd := range oddValues() {
		f.Add(odd)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s scanner
		if end := numberEnd([]byte(text), 0); end != len(text) || end == 0 {
			return
		}
		if !json.Valid([]byte(text)) {
			t.Fatalf("%q is no number", text)
		}
		for _, decimals := range []int{0, 3, 6} {
			checkFixedPoint(t, text, decimals)
		}
		d := UsageDecoder{scan: s}
		for _, decimals := range []int{0, 3, 6} {
			value, rest, next := d.amount([]byte(text+"}"), 0, decimals)
			want, wantRest, ok := fixedPoint([]byte(text), decimals)
			if ok && (next != len(text) || value != want || rest != wantRest) || !ok && next != bad {
				t.Errorf("%q with %d decimals: %d rest %d behind %d, want %d rest %d", text, decimals, value, rest, next, want, wantRest)
			}
		}
	})
}
