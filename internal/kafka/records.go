package kafka

import "tenantflow/events"

// Records are the records of a batch, copied, in the order of the log: what a [Batch] embeds that takes them one by one.
type Records struct {
	All   []events.Record
	bytes int64
}

// Add copies a record.
func (b *Records) Add(r *events.Record) {
	b.All = append(b.All, CopyRecord(r))
	b.bytes += RecordBytes(r)
}

// Close has nothing to do.
func (b *Records) Close() {}

// Rows is the number of records.
func (b *Records) Rows() int { return len(b.All) }

// Release has nothing to do.
func (b *Records) Release() {}

// Bytes is about how much memory the copies hold.
func (b *Records) Bytes() int64 { return b.bytes }
