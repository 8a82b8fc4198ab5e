package archive

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// magic begins every segment. Its last byte is the version of the format.
const magic = "TFLOGAR\x01"

// The kinds of frames.
const (
	frameHead  = 1
	frameBlock = 2
	frameEnd   = 3
)

const (
	frameHeader = 36
	maxHead     = 4 << 10 // bytes of a head's body
	endBytes    = 16      // bytes of an end's body
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a table

// A frame is the header of a frame.
type frame struct {
	kind        uint32
	length, raw uint32
	count       uint32
	first, last int64
}

// seal writes the header into the first bytes of b, which hold room for it and behind it the body.
func (f frame) seal(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[4:], f.kind)
	le.PutUint32(b[8:], f.length)
	le.PutUint32(b[12:], f.raw)
	le.PutUint32(b[16:], f.count)
	le.PutUint64(b[20:], uint64(f.first)) // #nosec G115 -- bits in the file
	le.PutUint64(b[28:], uint64(f.last))  // #nosec G115 -- bits in the file
	le.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
}

// parseFrame reads a header and bounds what it says: nothing is allocated by the word of damaged bytes.
func parseFrame(b []byte) (frame, error) {
	le := binary.LittleEndian
	f := frame{
		kind: le.Uint32(b[4:]), length: le.Uint32(b[8:]), raw: le.Uint32(b[12:]), count: le.Uint32(b[16:]),
		first: int64(le.Uint64(b[20:])), last: int64(le.Uint64(b[28:])), // #nosec G115 -- bits in the file
	}
	ok := false
	switch f.kind {
	case frameHead:
		ok = f.length <= maxHead && f.raw == 0 && f.count == 0
	case frameBlock:
		// What does not compress grows by a few bytes.
		ok = f.raw > 0 && f.raw <= maxRaw && f.length <= f.raw+f.raw/128+1024 && f.count > 0 && f.first >= 0 && f.last >= f.first
	case frameEnd:
		ok = f.length == endBytes && f.raw == 0 && f.count == 0
	}
	if !ok {
		return f, fmt.Errorf("a frame of kind %d with %d bytes, %d before compression and %d records can't be", f.kind, f.length, f.raw, f.count)
	}
	return f, nil
}

// checkFrame compares the checksum of a whole frame.
func checkFrame(header, body []byte) error {
	want := binary.LittleEndian.Uint32(header)
	if sum := crc32.Update(crc32.Checksum(header[4:frameHeader], castagnoli), castagnoli, body); sum != want {
		return fmt.Errorf("its checksum is %08x instead of %08x", sum, want)
	}
	return nil
}
