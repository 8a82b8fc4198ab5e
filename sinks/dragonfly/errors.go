package dragonfly

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A Class says what to do about an error.
type Class int

// The classes of errors.
const (
	Transient Class = iota // try again
	Fatal                  // a person has to change something
)

// A ConfigError says that the server is not set up as it must be.
type ConfigError struct{ message string }

func (e *ConfigError) Error() string { return e.message }

// Classify says what to do about an error of this package.
func Classify(err error) Class {
	var config *ConfigError
	if errors.As(err, &config) {
		return Fatal
	}
	text := answer(err)
	for _, word := range []string{
		"WRONGPASS", "NOAUTH", "NOPERM", "invalid password", "without any password configured", // who we are
		"WRONGTYPE",                                   // another program's key has our name
		"unknown command", "undeclared key", "compil", // not the server we know
	} {
		if strings.Contains(text, word) {
			return Fatal
		}
	}
	return Transient
}

// noScript reports whether the server has forgotten a script.
func noScript(err error) bool { return strings.Contains(answer(err), "NOSCRIPT") }

// answer is what the server said, empty if it was not the server. Dragonfly wraps errors of scripts, so a part is looked
// for and not the beginning.
func answer(err error) string {
	var said redis.Error
	if !errors.As(err, &said) || errors.Is(err, redis.Nil) || errors.Is(err, context.Canceled) {
		return ""
	}
	return said.Error()
}
