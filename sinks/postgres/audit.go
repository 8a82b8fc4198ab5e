package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// auditHead is the end of a company's chain.
type auditHead struct {
	seq  int64
	hash string
}

// An AuditRecord is a row of audit_log: one effect on one company. Its hash covers all of it and the hash of the record before,
// so that none can be changed, removed or put in without all that follow being changed as well.
type AuditRecord struct {
	CompanyID    string
	Seq          int64 // from 1, without gaps
	Source       string
	EventID      string
	Type         string
	Action       string
	OccurredAt   time.Time // in microseconds
	Details      string    // JSON
	PreviousHash string    // empty for the first
	Hash         string
}

// Sum is the hash that the record must have: SHA-256 in hexadecimal over its fields, one a line, the hash before first. No field
// holds a line feed. Anybody can compute it.
func (r *AuditRecord) Sum() string {
	text := strings.Join([]string{r.PreviousHash, r.CompanyID, fmt.Sprint(r.Seq), r.Source, r.EventID, r.Type, r.Action,
		effectTime(r.OccurredAt).Format("2006-01-02T15:04:05.000000Z"), r.Details}, "\n")
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
