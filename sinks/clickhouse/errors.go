package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/internal/certs"
)

// A Class says what to do about an error of ClickHouse.
type Class int

// The classes of errors.
const (
	Transient Class = iota // wait and try again, for as long as it takes
	Late                   // the rows came after their deadline; send them again with a new one
	Poison                 // the server refuses the data itself; sending the same rows again can't help
	Fatal                  // the configuration or the schema is wrong; a person has to act
)

// An Outcome says what is known about rows whose insert returned an error.
type Outcome int

// The outcomes of an insert.
const (
	Unknown  Outcome = iota // sent, and no answer: the rows may be there, may be missing, and may still be under way
	Answered                // the server answered with an error: nothing is under way, but parts may have landed
	NotSent                 // no connection was made: nothing reached the server
)

// ClickHouse's error codes that a branch depends on. Source: src/Common/ErrorCodes.cpp of ClickHouse.
const (
	codeTimeoutExceeded    = 159
	codeViolatedConstraint = 469
)

// poisonCodes are the errors that blame the data: the values of a row, or what a view makes of them. The list is closed
// and short on purpose: an error that is not about the data (memory limit, too many parts, a full disk) must never cost
// an event its row. Codes of parsers (CANNOT_PARSE_..., TOO_LARGE_STRING_SIZE) are not among them: rows travel in the
// Native format, which holds no text to parse, so such an error says that the request was damaged on its way.
var poisonCodes = map[int32]string{ //nolint:gochecknoglobals // a constant table
	69:  "ARGUMENT_OUT_OF_BOUND",
	70:  "CANNOT_CONVERT_TYPE",
	321: "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
	349: "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN",
	407: "DECIMAL_OVERFLOW",
	395: "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO",
}

// fatalCodes are the errors that no amount of waiting mends.
var fatalCodes = map[int32]string{ //nolint:gochecknoglobals // a constant table
	16:  "NO_SUCH_COLUMN_IN_TABLE",
	47:  "UNKNOWN_IDENTIFIER",
	53:  "TYPE_MISMATCH",
	60:  "UNKNOWN_TABLE",
	62:  "SYNTAX_ERROR",
	81:  "UNKNOWN_DATABASE",
	115: "UNKNOWN_SETTING",
	192: "UNKNOWN_USER",
	193: "WRONG_PASSWORD",
	497: "ACCESS_DENIED",
	516: "AUTHENTICATION_FAILED",
}

// Classify decides what to do about an error of this package. It is the only place where that is decided.
func Classify(err error) Class {
	var ex *chgo.Exception
	if !errors.As(err, &ex) {
		// No word from the server: a network fault, a proxy's answer, a timeout. Configuration faults that
		// show here as well (a wrong host name) can't be distinguished from an outage, so they wait too, visibly.
		return Transient
	}
	if ex.Code == codeViolatedConstraint {
		switch violated(ex.Message) {
		case deadlineConstraint:
			return Late
		case "":
			// The code came, its words did not: the connection was cut within the answer. It may have been the
			// deadline, so the rows are not to blame until a constraint's name was read.
			return Transient
		}
		return Poison
	}
	if _, ok := poisonCodes[ex.Code]; ok {
		if !whole(ex) {
			return Transient
		}
		return Poison
	}
	if _, ok := fatalCodes[ex.Code]; ok {
		return Fatal
	}
	return Transient
}

// deadlineConstraint is the constraint of usage_tracking that refuses rows after their deadline.
const deadlineConstraint = "in_time"

// violated is the name of the constraint in a message of ClickHouse, "Constraint `name` for table ... is violated ...".
// Behind it the message goes on with an expression and with values, which may hold anything, other names included.
func violated(message string) string {
	_, rest, _ := strings.Cut(message, "Constraint `")
	name, _, _ := strings.Cut(rest, "`")
	return name
}

// Refusal names why the server refuses a row, by its constraint or the error's code. The server's own words may go on with the row's values.
// An error that is not the server's keeps its words.
func Refusal(err error) string {
	var ex *chgo.Exception
	switch {
	case !errors.As(err, &ex):
		return err.Error()
	case ex.Code == codeViolatedConstraint:
		return fmt.Sprintf("it breaks the constraint %q (code %d)", violated(ex.Message), ex.Code)
	case poisonCodes[ex.Code] != "":
		return fmt.Sprintf("%s (code %d)", poisonCodes[ex.Code], ex.Code)
	}
	return fmt.Sprintf("code %d", ex.Code)
}

// whole reports whether the words of an exception were read to their end. Without them clickhouse-go makes an exception
// of the code in the header alone, whose class name ("DB::Exception") is missing.
func whole(ex *chgo.Exception) bool { return ex.Name != "" && ex.Message != "" }

// outcome says what is known about the rows of an insert that failed with err.
func outcome(err error) Outcome {
	var ex *chgo.Exception
	if errors.As(err, &ex) {
		return Answered
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return NotSent
	}
	var secure *certs.Error
	if errors.As(err, &secure) && secure.Early {
		return NotSent
	}
	if errors.Is(err, chgo.ErrAcquireConnTimeout) || errors.Is(err, chgo.ErrAcquireConnNoAddress) {
		return NotSent
	}
	return Unknown
}

// timedOut reports whether the server gave an insert up because of its max_execution_time, or we did.
func timedOut(err error) bool {
	var ex *chgo.Exception
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ex) && ex.Code == codeTimeoutExceeded
}

// errCutOff says that an answer ended before the row that was to be its last. It is transient.
var errCutOff = errors.New("the answer was cut off: its end row is missing")

// An InsertError is the error of Insert.
type InsertError struct {
	Err     error
	Class   Class
	Outcome Outcome
}

func (e *InsertError) Error() string { return e.Err.Error() }

func (e *InsertError) Unwrap() error { return e.Err }
