package chdb

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// Codes of ClickHouse that this package answers itself.
const (
	codeBadArguments         = 36
	codeLogicalError         = 49
	codeNotImplemented       = 48
	codeSyntaxError          = 62
	codeUnknownSetting       = 115
	codeTooManyBytes         = 307
	codeCannotReadAllData    = 33
	codeCannotDecompress     = 271
	codeQueryWasCancelled    = 394
	codeAuthenticationFailed = 516
	codeUnknownMediaType     = 779
	codeUnknownException     = 1002
)

// Exception is an error as ClickHouse states it.
type Exception struct {
	// Code is ClickHouse's own error code, for example 60 for an unknown table.
	Code int
	// Message is the text after "DB::Exception: ".
	Message string
}

// Error is the line a ClickHouse server writes into the body of its answer.
func (e *Exception) Error() string {
	return fmt.Sprintf("Code: %d. DB::Exception: %s", e.Code, e.Message)
}

func exceptionf(code int, format string, args ...any) *Exception {
	return &Exception{Code: code, Message: fmt.Sprintf(format, args...)}
}

// wrapped is an error inside an error of the same code, as an INSERT from a file gives it:
// "Code: 27. DB::Exception: Code: 27. DB::Exception: <message> (NAME) (version 26.7.2.1). (NAME)".
var wrapped = regexp.MustCompile(`(?s)^Code: (\d+)\. DB::Exception: (Code: (\d+)\. DB::Exception: .*) \(version [^()]*\)\. \([A-Z0-9_]+\)$`)

// parseException takes the engine's error text apart. Text of another shape keeps its words
// and gets the code of std::exception.
func parseException(text string) *Exception {
	text = strings.TrimSpace(text)
	if m := wrapped.FindStringSubmatch(text); m != nil && m[1] == m[3] {
		text = m[2]
	}
	if rest, ok := strings.CutPrefix(text, "Code: "); ok {
		number, message, _ := strings.Cut(rest, ". ")
		if code, err := strconv.Atoi(number); err == nil {
			return &Exception{Code: code, Message: strings.TrimPrefix(message, "DB::Exception: ")}
		}
	}
	return &Exception{Code: codeUnknownException, Message: text}
}

// httpStatus is the status that ClickHouse's HTTP interface answers for an error code.
// The grouping is the server's own (src/Server/HTTP/exceptionCodeToHTTPStatus.cpp); the numbers
// were read from the engine with errorCodeToName.
func httpStatus(code int) int {
	switch code {
	case 194:
		return http.StatusUnauthorized
	case 192, 193, 497, 512, codeAuthenticationFailed:
		return http.StatusForbidden
	case 6, 8, 15, 25, 26, 27, codeBadArguments, 37, 38, 41, 44, 53, codeSyntaxError, 72, 117, 123, 167, 168, 223, 321, 376, 427, 441, 675, 676:
		return http.StatusBadRequest
	case 46, 47, 50, 56, 60, 63, 73, 78, 81, codeUnknownSetting, 152, 336, 511:
		return http.StatusNotFound
	case 229:
		return http.StatusRequestEntityTooLarge
	case codeNotImplemented:
		return http.StatusNotImplemented
	case 76, 209, 439:
		return http.StatusServiceUnavailable
	case 381:
		return http.StatusLengthRequired
	case 159:
		return http.StatusRequestTimeout
	case codeUnknownMediaType:
		return http.StatusUnsupportedMediaType
	default:
		return http.StatusInternalServerError
	}
}
