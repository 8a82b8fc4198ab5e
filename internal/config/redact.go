package config

import (
	"log/slog"
	"regexp"
	"strings"
)

const hidden = "xxxxx"

var (
	plainScheme = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9+.-]*$`)
	// secretParameter finds query parameters of a URL whose name sounds like a secret.
	secretParameter = regexp.MustCompile(`(?i)([?&][^=&#]*(?:pass|secret|token|key|proxy)[^=&#]*=)[^&#]*`)
	// secretKeyword finds the password in the keyword/value form of a Postgres DSN.
	secretKeyword = regexp.MustCompile(`(?i)(password\s*=\s*)('(?:[^'\\]|\\.)*'?|\S+)`)
)

// A Secret is a value that is never shown: printing or logging one gives xxxxx. Use [Secret.Reveal] where the value
// itself is needed.
type Secret string

// Reveal gives the value.
func (s Secret) Reveal() string { return string(s) }

// String gives the redacted form, and an empty string for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString gives the redacted form.
func (s Secret) GoString() string { return s.String() }

// LogValue gives the redacted form.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText gives the redacted form.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A SecretURL is the address of a store, which may hold a password: printing or logging one leaves that out. Use
// [SecretURL.Reveal] where the address itself is needed.
type SecretURL string

// Reveal gives the address.
func (s SecretURL) Reveal() string { return string(s) }

// String gives the redacted form, and an empty string for an empty address.
func (s SecretURL) String() string {
	if s == "" {
		return ""
	}
	return redactURL(string(s))
}

// GoString gives the redacted form.
func (s SecretURL) GoString() string { return s.String() }

// LogValue gives the redacted form.
func (s SecretURL) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText gives the redacted form.
func (s SecretURL) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// redactURL hides the secret parts of a store's address. Of a URL, the user, the host and harmless parameters stay
// readable, because they are what one looks for when a connection fails; anything else disappears whole. It takes the
// value apart by hand, since exactly the malformed ones (a password with an unescaped '@' or '/') must not leak.
func redactURL(value string) string {
	scheme, rest, ok := strings.Cut(value, "://")
	if !ok || !plainScheme.MatchString(scheme) {
		if secretKeyword.MatchString(value) {
			return secretKeyword.ReplaceAllString(value, "${1}"+hidden)
		}
		return hidden
	}
	// The last '@' ends the user and password, also where the password has one of its own.
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		user, _, hasPassword := strings.Cut(rest[:at], ":")
		rest = rest[at:]
		if hasPassword {
			rest = ":" + hidden + rest
		}
		rest = user + rest
	}
	return scheme + "://" + secretParameter.ReplaceAllString(rest, "${1}"+hidden)
}
