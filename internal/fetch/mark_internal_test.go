package fetch

import (
	"bytes"
	"testing"

	"tenantflow/events"
)

// What a batch was decompressed to goes back to all readers when the batch ends. The mark of its last record is taken before.
func TestBatch_TheMarkIsOfTheRecordAsItWasShown(t *testing.T) {
	t.Parallel()
	value := bytes.Repeat([]byte("value "), 1<<19) // more than may be decompressed without a claim
	records := encodeRecord(0, []byte("key"), value)
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			batch := batchOf(way.compress(records), 1, way.code)
			for range 20 { // the pool of buffers need not give back the one that was released
				r := &Reader{Claim: func(int64) (func(), error) {
					return func() { // another reader fills the buffer
						b := takeBuffer(0)
						clear(b.bytes[:cap(b.bytes)])
						b.release()
					}, nil
				}}
				var want Mark
				got := Result{}
				err := r.walk(answer{records: batch}, &got, func(rec *events.Record) error {
					want = MarkOf(rec)
					return nil
				})
				r.releaseScratch()
				if err != nil || got.Records != 1 || got.Last != want {
					t.Fatalf("%d records, mark %+v, want %+v; %v", got.Records, got.Last, want, err)
				}
			}
		})
	}
}
