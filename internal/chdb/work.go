package chdb

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

// work is what a request asks of the engine, once its body has arrived.
type work struct {
	text string
	// format is the one in the statement's FORMAT clause, or "".
	format string
	// file holds the rows of an insert; "" when there are none.
	file string
}

func (w work) remove(log *slog.Logger) {
	if w.file == "" {
		return
	}
	if err := os.Remove(w.file); err != nil {
		log.Error("remove the rows of an insert", "error", err)
	}
}

// receive reads the body to its end and turns an INSERT with data into one that reads a file.
func (s *Server) receive(q *request) (work, error) {
	body := &io.LimitedReader{R: q.body, N: maxBody + 1}
	head, inBody := []byte(q.text), false
	if len(head) == 0 {
		// The query is in the body, perhaps with data behind it.
		data, err := io.ReadAll(body)
		if err != nil {
			return work{}, readError(err)
		}
		head, inBody = data, true
	}
	in, ok := parseInsert(head)
	if !ok {
		rest, err := io.ReadAll(body)
		if err != nil {
			return work{}, readError(err)
		}
		if body.N <= 0 {
			return work{}, errTooLarge()
		}
		text := head
		if len(rest) > 0 {
			text = append(append(bytes.Clone(head), '\n'), rest...)
		}
		return work{text: string(text), format: outputFormat(text)}, nil
	}

	// SETTINGS behind FORMAT, where the data is not in the same text.
	data, settings := head[in.data:], in.settings
	if trailing := bytes.TrimSpace(data); !inBody && len(trailing) >= 8 && strings.EqualFold(string(trailing[:8]), "SETTINGS") {
		data, settings = nil, settings+" "+string(trailing)
	}
	file, err := s.spool.write(io.MultiReader(bytes.NewReader(data), body))
	if err != nil {
		return work{}, readError(err)
	}
	w := work{file: file}
	if body.N <= 0 {
		w.remove(s.log)
		return work{}, errTooLarge()
	}
	format := in.format
	if format == "" {
		format = "Values"
		if !strings.EqualFold(q.format, "TabSeparated") {
			format = q.format
		}
	}
	w.text = fmt.Sprintf("%s FROM INFILE %s COMPRESSION 'none' %s FORMAT %s", in.target, quoteText(file), settings, format)
	return w, nil
}

func readError(err error) error {
	return exceptionf(codeCannotReadAllData, "Cannot read the body: %v. (CANNOT_READ_ALL_DATA)", err)
}

func errTooLarge() error {
	return exceptionf(codeTooManyBytes, "The body is larger than %d bytes. (TOO_MANY_BYTES)", int64(maxBody))
}

// loadExternal makes an external table a temporary one of the session.
func (s *Server) loadExternal(session *session, t externalTable) error {
	if err := session.exec(fmt.Sprintf("CREATE TEMPORARY TABLE %s (%s)", quoteName(t.name), t.structure)); err != nil {
		return err
	}
	if len(t.data) == 0 {
		return nil
	}
	file, err := s.spool.write(bytes.NewReader(t.data))
	if err != nil {
		return err
	}
	defer work{file: file}.remove(s.log)
	return session.exec(fmt.Sprintf("INSERT INTO %s FROM INFILE %s COMPRESSION 'none' FORMAT %s", quoteName(t.name), quoteText(file), t.format))
}

// markSetting carries a request's mark into system.processes, where it is found again to be killed. The engine gives its
// statements ids of its own, allows no settings of ours, and a log_comment may be shared by many requests; this one
// only names the application to remote servers, of which there are none.
const markSetting = "chdb_client_name"

// killWhenGone ends the statement with that mark when ctx ends before stop is called.
// It is for statements that only read: on a server, too, an insert whose client is gone runs to its end.
func (s *Server) killWhenGone(ctx context.Context, mark string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		// The statement may not be registered yet, so ask until it is over.
		again := time.NewTicker(100 * time.Millisecond)
		defer again.Stop()
		for {
			s.kill("Settings[" + quoteText(markSetting) + "] = " + quoteText(mark))
			select {
			case <-done:
				return
			case <-again.C:
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// kill ends the statements that a condition over system.processes selects, without waiting for them.
func (s *Server) kill(condition string) {
	session, err := s.engine.session()
	if err != nil {
		s.log.Error("kill a query", "error", err)
		return
	}
	defer session.close()
	if err := session.exec("KILL QUERY WHERE " + condition + " ASYNC"); err != nil {
		s.log.Error("kill a query", "error", err)
	}
}
