package events

import (
	"bytes"
	"encoding/json"
)

const (
	// maxPayment bounds a payment object, in bytes of JSON with every number written out: it is stored whole.
	maxPayment = 4 << 10
	// maxPaymentExponent is that of the numbers most readers can hold.
	maxPaymentExponent = 400
)

// checkPayment refuses a payment object that can't be kept whole. Data without one, or with something else by that name, passes.
func checkPayment(data any) *Rejection {
	members, _ := data.(map[string]any)
	payment, ok := members["payment"].(map[string]any)
	if !ok {
		return nil
	}
	grows, ok := writtenOut(payment)
	if !ok {
		return Reject(InvalidData, "at %q: a number has an exponent beyond %d", "/payment", maxPaymentExponent)
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(payment); err != nil {
		return Reject(InvalidData, "at %q: the payment can't be written as JSON", "/payment")
	}
	if size := text.Len() - 1 + grows; size > maxPayment {
		return Reject(InvalidData, "at %q: the payment has %d bytes, more than %d", "/payment", size, maxPayment)
	}
	return nil
}

// writtenOut gives how many bytes JSON grows by when its numbers are written without exponents, as Postgres does.
func writtenOut(value any) (grows int, ok bool) {
	switch v := value.(type) {
	case json.Number:
		_, exponent := splitExponent([]byte(v))
		if exponent < -maxPaymentExponent || exponent > maxPaymentExponent {
			return 0, false
		}
		return int(max(exponent, -exponent)), true
	case map[string]any:
		for _, member := range v {
			more, ok := writtenOut(member)
			if !ok {
				return 0, false
			}
			grows += more
		}
	case []any:
		for _, item := range v {
			more, ok := writtenOut(item)
			if !ok {
				return 0, false
			}
			grows += more
		}
	}
	return grows, true
}
