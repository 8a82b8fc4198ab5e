package chdb

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/andybalholm/brotli"
	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"
)

// request is a query as the HTTP interface carries it.
type request struct {
	// id is the query_id parameter or a new UUID.
	id string
	// text is the query parameter.
	text string
	// body is the rest of the query or its data, decompressed.
	body     io.Reader
	database string
	// format is used where the query has no FORMAT clause.
	format string
	// revision is the protocol revision for Native output; 0 is the plain format.
	revision uint64
	// compress asks for an answer in ClickHouse's compressed blocks, level and method as network_compression_method says.
	compress bool
	method   compress.Method
	params   []param
	settings []setting
	// readonly is the setting of that name, or "".
	readonly string
	external []externalTable
}

// externalTable is data sent along with a query, which sees it as a temporary table.
type externalTable struct {
	name, format, structure string
	data                    []byte
}

// transportParams are the URL parameters that are no settings.
var transportParams = []string{
	"query", "database", "default_format", "query_id", "client_protocol_version", "compress", "decompress",
	"user", "password", "quota_key", "wait_end_of_query", "buffer_size", "stacktrace", "close_session", "role",
	"session_id", "session_timeout", "session_check",
}

// maxForm bounds a multipart request (queries with external tables), which is held in memory.
const maxForm = 1 << 30

// parseRequest reads everything but the body of an ordinary request. Errors are *Exception.
func parseRequest(r *http.Request) (*request, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, exceptionf(codeBadArguments, "Cannot parse the URL's parameters: %v. (BAD_ARGUMENTS)", err)
	}
	q := &request{format: "TabSeparated", method: compress.LZ4, body: bytes.NewReader(nil)}
	if err := q.readBody(r, values); err != nil {
		return nil, err
	}
	if err := authenticate(r, values); err != nil {
		return nil, err
	}
	if values.Get("session_id") != "" {
		return nil, exceptionf(codeNotImplemented, "Sessions over several requests are not supported here. (NOT_IMPLEMENTED)")
	}

	q.text = values.Get("query")
	q.database = first(values.Get("database"), r.Header.Get("X-ClickHouse-Database"))
	q.format = first(r.Header.Get("X-ClickHouse-Format"), values.Get("default_format"), q.format)
	q.id = first(values.Get("query_id"), r.Header.Get("X-ClickHouse-Query-Id"), uuid.NewString())
	q.compress = enabled(values.Get("compress"))
	if v := values.Get("client_protocol_version"); v != "" {
		if q.revision, err = strconv.ParseUint(v, 10, 32); err != nil {
			return nil, exceptionf(codeBadArguments, "Cannot parse client_protocol_version %s. (BAD_ARGUMENTS)", quoteText(v))
		}
	}
	if strings.EqualFold(values.Get("network_compression_method"), "zstd") {
		q.method = compress.ZSTD
	}
	q.readSettings(r, values)
	return q, nil
}

func (q *request) readSettings(r *http.Request, values url.Values) {
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names) // one order, so that one of two errors always wins
	for _, name := range names {
		value := values.Get(name)
		switch bound, isParam := strings.CutPrefix(name, "param_"); {
		case isParam:
			q.params = append(q.params, param{bound, value})
		case slices.Contains(transportParams, name):
		case name == "readonly":
			q.readonly = value
		default:
			q.settings = append(q.settings, setting{name, value})
		}
	}
	// The engine has no way to be told a query id. As the comment it shows in system.processes and the logs.
	if id := values.Get("query_id"); id != "" && !values.Has("log_comment") {
		q.settings = append(q.settings, setting{"log_comment", id})
	}
	// A GET may be repeated by anything on the way, so it may not change anything; 2 still allows settings.
	if r.Method != http.MethodPost && r.Method != http.MethodPut && q.readonly == "" {
		q.readonly = "2"
	}
}

// readBody unpacks the body. The fields of a form join values, its files become external tables.
func (q *request) readBody(r *http.Request, values url.Values) error {
	body, err := decodeBody(r, enabled(values.Get("decompress")))
	if err != nil {
		return err
	}
	media, attributes, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "multipart/form-data" {
		q.body = body
		return nil //nolint:nilerr // a body that is no form is the statement
	}
	form := multipart.NewReader(io.LimitReader(body, maxForm), attributes["boundary"])
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return q.nameExternal(values)
		}
		if err != nil {
			return exceptionf(codeCannotReadAllData, "Cannot read the form: %v. (CANNOT_READ_ALL_DATA)", err)
		}
		data, err := io.ReadAll(part)
		if err != nil {
			return exceptionf(codeCannotReadAllData, "Cannot read the form: %v. (CANNOT_READ_ALL_DATA)", err)
		}
		// clickhouse-go sends tables with an empty file name, so what counts is that there is one, not what it is.
		if _, disposition, err := mime.ParseMediaType(part.Header.Get("Content-Disposition")); err == nil {
			if _, isFile := disposition["filename"]; !isFile {
				values.Set(part.FormName(), string(data))
				continue
			}
		}
		q.external = append(q.external, externalTable{name: part.FormName(), data: data})
	}
}

// nameExternal takes the format and the structure of every external table out of the parameters.
func (q *request) nameExternal(values url.Values) error {
	for i := range q.external {
		t := &q.external[i]
		t.format = first(values.Get(t.name+"_format"), "TabSeparated")
		t.structure = values.Get(t.name + "_structure")
		if types := values.Get(t.name + "_types"); t.structure == "" && types != "" {
			var columns []string
			for n, columnType := range splitTypes(types) {
				columns = append(columns, fmt.Sprintf("_%d %s", n+1, columnType))
			}
			t.structure = strings.Join(columns, ", ")
		}
		if t.structure == "" {
			return exceptionf(codeBadArguments, "Neither structure nor types of the external table %s given. (BAD_ARGUMENTS)", quoteText(t.name))
		}
		for _, suffix := range []string{"_format", "_structure", "_types"} {
			values.Del(t.name + suffix)
		}
	}
	return nil
}

// splitTypes cuts a list of types at the commas outside brackets.
func splitTypes(types string) []string {
	lex := lexer{text: []byte(types)}
	var list []string
	begin := 0
	for {
		t := lex.next()
		if t.kind == tokenEnd {
			return append(list, types[begin:])
		}
		if t.depth == 0 && string(t.text) == "," {
			list = append(list, types[begin:t.begin])
			begin = t.end
		}
	}
}

// decodeBody removes the compression of HTTP (Content-Encoding) and then ClickHouse's own (decompress=1).
func decodeBody(r *http.Request, blocks bool) (io.Reader, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return bytes.NewReader(nil), nil
	}
	var body io.Reader = r.Body
	var err error
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip", "x-gzip":
		body, err = gzip.NewReader(body)
	case "deflate":
		body, err = zlib.NewReader(body)
	case "br":
		body = brotli.NewReader(body)
	case "zstd":
		body, err = zstd.NewReader(body, zstd.WithDecoderConcurrency(1))
	default:
		return nil, exceptionf(codeNotImplemented, "Unknown compression method: %s. (NOT_IMPLEMENTED)", encoding)
	}
	if err != nil {
		return nil, exceptionf(codeCannotDecompress, "Cannot decompress the body: %v. (CANNOT_DECOMPRESS)", err)
	}
	if blocks {
		body = blockReader{compress.NewReader(body)}
	}
	return body, nil
}

// blockReader makes the end of compressed blocks a plain io.EOF, as io.Copy wants it.
type blockReader struct{ r *compress.Reader }

func (b blockReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// authenticate accepts one user, default, without a password: what a new ClickHouse server has.
func authenticate(r *http.Request, values url.Values) error {
	user, password := values.Get("user"), values.Get("password")
	if u, p, ok := r.BasicAuth(); ok {
		user, password = u, p
	}
	user = first(r.Header.Get("X-ClickHouse-User"), user, "default")
	password = first(r.Header.Get("X-ClickHouse-Key"), password)
	if user == "default" && password == "" {
		return nil
	}
	return exceptionf(codeAuthenticationFailed, "%s: Authentication failed: password is incorrect, or there is no user with such name. (AUTHENTICATION_FAILED)", user)
}

func enabled(v string) bool { return v == "1" || strings.EqualFold(v, "true") }

// first is the first of its arguments that is not empty.
func first(candidates ...string) string {
	for _, c := range candidates {
		if c != "" {
			return c
		}
	}
	return ""
}
