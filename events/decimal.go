package events

import (
	"bytes"
	"strconv"
)

// A number is a decimal taken apart exactly: (-1)^neg x digits x 10^exp. Digits have neither leading nor trailing
// zeros; zero has no digits, no sign and no exponent.
//
// Amounts are never turned into a float: 0.1 has none.
type number struct {
	neg    bool
	digits []byte // ASCII; points into scratch or the text
	exp    int64  // saturates far beyond anything a field may hold
}

// maxExponent bounds the exponent of a number, so that sums of exponents and lengths cannot overflow.
const maxExponent = 1 << 40

// parseNumber takes the text of a valid JSON number apart.
func parseNumber(text []byte) number {
	var n number
	if len(text) > 0 && text[0] == '-' {
		n.neg = true
		text = text[1:]
	}
	mantissa := text
	if i := bytes.IndexAny(text, "eE"); i >= 0 {
		mantissa = text[:i]
		n.exp = parseExponent(text[i+1:])
	}
	if i := bytes.IndexByte(mantissa, '.'); i >= 0 {
		whole, frac := mantissa[:i], mantissa[i+1:]
		n.exp -= int64(len(frac))
		n.digits = append(append(make([]byte, 0, len(whole)+len(frac)), whole...), frac...)
	} else {
		n.digits = mantissa
	}
	n.digits = bytes.TrimLeft(n.digits, "0")
	trimmed := bytes.TrimRight(n.digits, "0")
	n.exp += int64(len(n.digits) - len(trimmed))
	n.digits = trimmed
	if len(n.digits) == 0 {
		return number{}
	}
	return n
}

func parseExponent(text []byte) int64 {
	neg := false
	if len(text) > 0 && (text[0] == '+' || text[0] == '-') {
		neg = text[0] == '-'
		text = text[1:]
	}
	var e int64
	for _, c := range text {
		e = min(e*10+int64(c-'0'), maxExponent)
	}
	if neg {
		return -e
	}
	return e
}

// scaled gives the number times 10^scale as an integer. It is exact when nothing but zeros was behind the last digit
// kept; otherwise the value is rounded half up. It is false when the number is negative or has more than 18 digits.
func (n number) scaled(scale int) (value int64, exact, ok bool) {
	if len(n.digits) == 0 {
		return 0, true, true
	}
	if n.neg {
		return 0, false, false
	}
	exp := n.exp + int64(scale)
	width := int64(len(n.digits)) + exp // digits of the integer part
	if width > 18 {
		return 0, false, false
	}
	if width < 0 {
		return 0, false, true
	}
	for i := int64(0); i < width; i++ {
		value *= 10
		if i < int64(len(n.digits)) {
			value += int64(n.digits[i] - '0')
		}
	}
	if exp >= 0 {
		return value, true, true
	}
	if n.digits[width] >= '5' {
		value++
	}
	return value, false, true
}

// tamed gives the text of a JSON number that every comparison with a bound, every multipleOf and every rounding of
// this package judges like the original, but which is short. Without it a number of a megabyte, or one like
// 1e999999999, would keep arbitrary-precision arithmetic busy for seconds or break it.
func tamed(text string) string {
	const keep, far = 100, 400
	if len(text) <= keep && bytes.IndexAny([]byte(text), "eE") < 0 {
		return text
	}
	n := parseNumber([]byte(text))
	if len(n.digits) == 0 {
		return "0"
	}
	sign := ""
	if n.neg {
		sign = "-"
	}
	switch width := int64(len(n.digits)) + n.exp; {
	case width > far:
		return sign + "1e" + strconv.Itoa(far)
	case width < -far:
		return sign + "1e-" + strconv.Itoa(far)
	}
	if len(n.digits) > keep {
		// The 1 stands for the rest: more than nothing, less than half.
		n.exp += int64(len(n.digits) - keep - 1)
		n.digits = append(append(make([]byte, 0, keep+1), n.digits[:keep]...), '1')
	}
	return sign + string(n.digits) + "e" + strconv.FormatInt(n.exp, 10)
}
