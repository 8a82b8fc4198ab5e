package events

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// A remainder is what is behind the last decimal that is kept.
type remainder int

const (
	nothing   remainder = iota // the value is exact
	belowHalf                  // more than nothing, less than half a unit
	halfOrUp                   // half a unit or more
)

// maxFixed is the largest value of fixedPoint: 18 digits always fit an int64.
const maxFixed = 999_999_999_999_999_999

// fixedPoint reads the text of a valid JSON number as an integer in units of 10^-decimals, with what is left over. It is
// exact for every text: amounts are never turned into a float, which has no 0.1. It is not ok for negative numbers other
// than -0 and for more than maxFixed. It allocates nothing and takes time linear in the text, whatever the exponent.
func fixedPoint(text []byte, decimals int) (value int64, rest remainder, ok bool) {
	negative := false
	if len(text) > 0 && text[0] == '-' {
		negative = true
		text = text[1:]
	}
	mantissa, exponent := splitExponent(text)
	point := bytes.IndexByte(mantissa, '.')
	if point < 0 {
		point = len(mantissa)
	}
	// weight is the power of ten, in units of the result, of the digit the loop is at.
	weight := int64(point) - 1 + exponent + int64(decimals)
	for _, c := range mantissa {
		if c == '.' {
			continue
		}
		switch digit := int64(c - '0'); {
		case digit == 0:
		case weight >= 18 || negative:
			return 0, nothing, false
		case weight >= 0:
			value += digit * pow10(weight)
		case weight == -1 && digit >= 5:
			rest = halfOrUp
		default:
			rest = max(rest, belowHalf)
		}
		weight--
	}
	return value, rest, true
}

// pow10 is 10^n for n from 0 to 18.
func pow10(n int64) int64 {
	p := int64(1)
	for base := int64(10); n > 0; n >>= 1 {
		if n&1 == 1 {
			p *= base
		}
		base *= base
	}
	return p
}

// splitExponent separates the exponent, 0 when there is none. It saturates far beyond any length of text, so that sums
// of exponents and lengths don't overflow.
func splitExponent(text []byte) (mantissa []byte, exponent int64) {
	const most = 1 << 40
	for i, c := range text {
		if c|0x20 != 'e' {
			continue
		}
		digits, negative := text[i+1:], false
		if len(digits) > 0 && (digits[0] == '+' || digits[0] == '-') {
			negative = digits[0] == '-'
			digits = digits[1:]
		}
		for _, d := range digits {
			exponent = min(exponent*10+int64(d-'0'), most)
		}
		if negative {
			exponent = -exponent
		}
		return text[:i], exponent
	}
	return text, 0
}

// tamed gives the text of a JSON number that every comparison with a bound, every multipleOf and every rounding of
// this package judges like the original, but which is short. Without it a number of a megabyte, or one like
// 1e999999999, would keep arbitrary-precision arithmetic busy for seconds or break it.
func tamed(text string) string {
	const keep, far = 100, 400
	mantissa, exponent := splitExponent([]byte(text))
	if len(text) <= keep && len(mantissa) == len(text) {
		return text
	}
	sign, digits, exponent := significant(mantissa, exponent)
	switch width := int64(len(digits)) + exponent; {
	case len(digits) == 0:
		return "0"
	case width > far:
		return sign + "1e" + strconv.Itoa(far)
	case width < -far:
		return sign + "1e-" + strconv.Itoa(far)
	}
	if len(digits) > keep {
		// The 1 stands for the rest: more than nothing, less than half.
		exponent += int64(len(digits) - keep - 1)
		digits = append(digits[:keep:keep], '1')
	}
	return sign + string(digits) + "e" + strconv.FormatInt(exponent, 10)
}

// canonicalNumber gives the text that all JSON numbers of one value share: digits without zeros at either end, and an exponent.
func canonicalNumber(text string) json.Number {
	sign, digits, exponent := significant(splitExponent([]byte(text)))
	switch {
	case len(digits) == 0:
		return "0"
	case exponent == 0:
		return json.Number(sign + string(digits))
	}
	return json.Number(sign + string(digits) + "e" + strconv.FormatInt(exponent, 10))
}

// significant gives the sign of a number ("-" or nothing), its digits without zeros at either end, and the exponent that belongs to them.
func significant(mantissa []byte, exponent int64) (sign string, digits []byte, power int64) {
	if mantissa[0] == '-' {
		sign, mantissa = "-", mantissa[1:]
	}
	whole, fraction, _ := bytes.Cut(mantissa, []byte{'.'})
	exponent -= int64(len(fraction))
	all := bytes.TrimLeft(append(bytes.Clone(whole), fraction...), "0")
	digits = bytes.TrimRight(all, "0")
	return sign, digits, exponent + int64(len(all)-len(digits))
}
