// Package archive keeps the log of a topic in files, for longer than the topic's retention, and reads it back.
//
// An archive is a directory for one topic below a root, named like the topic:
//
//	ROOT/usage.events/manifest.json                  what the archive holds; written last
//	ROOT/usage.events/3-0-81234.segment              partition 3, offsets 0 to 81233
//	ROOT/usage.events/lock                           held by the process that writes
//
// The archive is a function of the log and of where it ends. Segments are cut where their content says, and the last
// segment of a partition, as long as it is not full, is written again with what has come since. So any number of runs,
// killed wherever, leave the same files as one undisturbed run.
//
// # Order of writing
//
// A segment is written under a temporary name, synced, renamed, and its directory is synced; only then does a new
// manifest name it, which is written in the same four steps. A file that the manifest does not name is a leftover of a run
// that died, and the next run removes it. Files that a manifest has replaced are removed after it is in place.
//
// # Checksums
//
// Each block of a segment has a CRC-32C over its header and its compressed bytes, the checksum of Kafka's own record
// batches: it finds every change of up to 32 neighbouring bits, costs next to nothing, and is checked before the bytes are
// decompressed. The manifest has the size and the SHA-256 of every file, which also finds a file of another archive, an
// older copy or exchanged blocks; "sha256sum" computes it by hand. The manifest has the SHA-256 of its own content.
//
// # Segments
//
// All integers are little endian. A segment begins with a magic number of eight bytes, whose last one is the version of the
// format, and then holds frames: first one of kind head, whose body is JSON (topic, partition, first offset), then blocks,
// then one of kind end, and nothing behind it. A frame is
//
//	crc32c uint32   over everything behind it in the frame
//	kind   uint32   1 head, 2 block, 3 end
//	length uint32   of the body as it is in the file
//	raw    uint32   bytes of the body before compression; 0: it is not compressed
//	count  uint32   records of a block
//	first  int64    offset of its first record
//	last   int64    offset of its last record
//	body
//
// The end's body is the number of records and of raw bytes in the segment, two uint64. The body of a block is one zstd
// frame; record.go describes the records in it.
package archive
