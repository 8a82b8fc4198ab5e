package postgres

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed queries/audit_companies.sql
	auditCompaniesSQL string
	//go:embed queries/audit_chain.sql
	auditChainSQL string
)

// auditHead is the end of a company's chain.
type auditHead struct {
	Seq  int64  `db:"audit_seq"`
	Hash string `db:"audit_hash"`
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
// holds a line feed. Any reader can compute it.
func (r *AuditRecord) Sum() string {
	text := strings.Join([]string{r.PreviousHash, r.CompanyID, fmt.Sprint(r.Seq), r.Source, r.EventID, r.Type, r.Action,
		effectTime(r.OccurredAt).Format("2006-01-02T15:04:05.000000Z"), r.Details}, "\n")
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// appendAudit queues a record, whose hash is set. The caller holds the company's lock and moves the company's head on.
func appendAudit(b *pgx.Batch, r *AuditRecord) {
	b.Queue(auditPutSQL, r.CompanyID, r.Seq, r.Source, r.EventID, r.Type, r.Action, r.OccurredAt, r.Details, r.PreviousHash, r.Hash)
}

// An AuditFault is a place where a company's audit log is not what was written.
type AuditFault struct {
	CompanyID string
	Seq       int64 // of the record, or of the one that is missing
	Problem   string
}

func (f AuditFault) String() string {
	return fmt.Sprintf("company %s, record %d: %s", f.CompanyID, f.Seq, f.Problem)
}

// auditFaults bounds what is reported of one company: after the first, the others often follow from it.
const auditFaults = 10

// VerifyAudit walks the chains of all companies, or of one, and returns where they are broken: a record that was changed, is
// missing, was put in, or is not the one that the company's row says is the last. It reads a company at a time.
func (s *Store) VerifyAudit(ctx context.Context, company string) ([]AuditFault, error) {
	rows, _ := s.pool.Query(ctx, auditCompaniesSQL, company) // its error comes with the rows
	companies, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, s.explain("list the companies of the audit log", err)
	}
	var faults []AuditFault
	for _, id := range companies {
		own, err := s.verifyChain(ctx, id)
		if err != nil {
			return faults, s.explain("read the audit log of company "+id, err)
		}
		faults = append(faults, own[:min(len(own), auditFaults)]...)
	}
	return faults, nil
}

// A chainRow is a row of audit_chain.sql.
type chainRow struct {
	auditHead
	AuditRecord
}

// verifyChain walks the chain of one company. The head is read in the same statement, so that it fits what is read.
func (s *Store) verifyChain(ctx context.Context, company string) ([]AuditFault, error) {
	rows, _ := s.pool.Query(ctx, auditChainSQL, company) // its error comes with the rows
	defer rows.Close()
	var faults []AuditFault
	fault := func(seq int64, problem string) { faults = append(faults, AuditFault{company, seq, problem}) }
	var head, last auditHead
	for rows.Next() {
		r, err := pgx.RowToStructByName[chainRow](rows)
		if err != nil {
			return nil, err
		}
		head = r.auditHead
		switch {
		case r.AuditRecord.Seq == 0: // a head without a log
		case r.AuditRecord.Seq != last.Seq+1:
			fault(last.Seq+1, "it is missing")
		case r.PreviousHash != last.Hash:
			fault(r.AuditRecord.Seq, "it does not follow the record before it: one of the two was put in or changed")
		case r.Sum() != r.AuditRecord.Hash:
			fault(r.AuditRecord.Seq, "its content is not what its hash was made of: it was changed")
		}
		last = auditHead{r.AuditRecord.Seq, r.AuditRecord.Hash}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if last != head && (len(faults) == 0 || faults[len(faults)-1].Seq != last.Seq) {
		fault(last.Seq, fmt.Sprintf("it is the last, and the company's head says that record %d is", head.Seq))
	}
	return faults, nil
}
