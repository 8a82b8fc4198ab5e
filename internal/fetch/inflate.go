package fetch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/segmentio/kafka-go/compress"
)

// Memory that a codec needs to decompress, beyond what a fetch may use without asking.
const (
	unclaimed = 1 << 20

	// Frames of zstd say how large their window is. Up to the ordinary one, decoders are kept for the next batch; RFC 8878
	// asks every decoder for as much. Wider is what zstd's own decoder accepts at most unless configured otherwise: brokers
	// and Java clients do not read what needs more.
	ordinaryWindow = 8 << 20
	widestWindow   = 1<<27 + 1<<10

	// A block of lz4 takes its bytes and what they stand for, 4 MiB each at most. Frames say in three bits of one byte how
	// large their blocks are; the next smaller ones have 1 MiB.
	lz4Block        = 8 << 20
	lz4SizeAt       = 5
	lz4LargestBlock = 7

	// In snappy, three bytes stand for 64 at most.
	snappyRatio = 22
)

// claimError is an error of Reader.Claim.
type claimError struct{ err error }

func (e *claimError) Error() string { return e.err.Error() }

// claim asks for memory to decompress a batch.
func (r *Reader) claim(n int64) (release func(), err error) {
	if n <= unclaimed || r.Claim == nil {
		return func() {}, nil
	}
	if release, err = r.Claim(n); err != nil {
		return nil, &claimError{err}
	}
	return release, nil
}

// inflated hands the records of a compressed batch to use, as a stream.
func (r *Reader) inflated(body []byte, c compress.Compression, use func(*stream) error) error {
	if c == compress.Snappy {
		return r.inflateSnappy(body, use)
	}
	if c == compress.Zstd {
		err := r.inflateZstd(body, false, use)
		if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
			err = r.inflateZstd(body, true, use) // what was shown of it is not shown again
		}
		return err
	}
	codec := c.Codec()
	if codec == nil {
		return &CorruptError{r.base, fmt.Errorf("its compression %d is unknown", c)}
	}
	need := int64(0)
	if c == compress.Lz4 && (len(body) <= lz4SizeAt || body[lz4SizeAt]>>4&7 >= lz4LargestBlock) {
		need = lz4Block
	}
	release, err := r.claim(need)
	if err != nil {
		return err
	}
	defer release()
	d := codec.NewReader(bytes.NewReader(body))
	defer func() { _ = d.Close() }() // it was read to its end, or failed
	return use(r.from(d))
}

// from is a stream of what d decompresses.
func (r *Reader) from(d io.Reader) *stream {
	if r.scratch == nil {
		r.scratch = takeBuffer(piece)
	}
	return &stream{src: d, room: &r.scratch}
}

func (r *Reader) releaseScratch() {
	if r.scratch != nil {
		r.scratch.release()
		r.scratch = nil
	}
}

// decoders are free ones, for frames with an ordinary window.
var decoders sync.Pool //nolint:gochecknoglobals // a pool is shared by its nature

func (r *Reader) inflateZstd(body []byte, wide bool, use func(*stream) error) error {
	most := uint64(ordinaryWindow)
	if wide {
		most = widestWindow
	}
	need := most
	var header zstd.Header
	if err := header.Decode(body[:min(len(body), zstd.HeaderMaxSize)]); err == nil && !wide {
		need = header.WindowSize
		if header.SingleSegment {
			need = header.FrameContentSize
		}
	}
	release, err := r.claim(int64(min(need, most))) // #nosec G115 -- small
	if err != nil {
		return err
	}
	defer release()
	d, _ := decoders.Get().(*zstd.Decoder)
	if d == nil || wide {
		d, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(most), zstd.WithDecodeBuffersBelow(0), zstd.WithDecoderLowmem(true))
		if err != nil {
			return fmt.Errorf("make a zstd decoder: %w", err)
		}
	}
	if wide {
		defer d.Close()
	} else {
		defer func() {
			_ = d.Reset(nil) // always an error: nothing is to be read now
			decoders.Put(d)
		}()
	}
	if err := d.Reset(bytes.NewReader(body)); err != nil {
		return &CorruptError{r.base, fmt.Errorf("decompress it: %w", err)}
	}
	return use(r.from(d))
}

// xerial is what snappy's blocks begin with where there are several, followed by two version numbers. Source: the library
// snappy-java, which Kafka's own clients use. Other clients write a single block, and nothing before it.
const (
	xerial       = "\x82SNAPPY\x00"
	xerialHeader = 16
)

func (r *Reader) inflateSnappy(body []byte, use func(*stream) error) error {
	if len(body) >= xerialHeader && string(body[:len(xerial)]) == xerial {
		blocks := &snappyBlocks{reader: r, rest: body[xerialHeader:]}
		defer blocks.close()
		return use(r.from(blocks))
	}
	blocks := &snappyBlocks{reader: r}
	defer blocks.close()
	if err := blocks.take(body); err != nil {
		return &CorruptError{r.base, fmt.Errorf("decompress it: %w", err)}
	}
	return use(&stream{b: blocks.block.bytes})
}

// snappyBlocks reads blocks, each of which has its size before it.
type snappyBlocks struct {
	reader  *Reader
	rest    []byte // compressed
	block   *buffer
	at      int // in block
	release func()
}

func (s *snappyBlocks) Read(p []byte) (int, error) {
	for s.block == nil || s.at == len(s.block.bytes) {
		if len(s.rest) == 0 {
			return 0, io.EOF
		}
		if len(s.rest) < 4 || int64(binary.BigEndian.Uint32(s.rest)) > int64(len(s.rest)-4) {
			return 0, io.ErrUnexpectedEOF
		}
		end := 4 + int(binary.BigEndian.Uint32(s.rest))
		if err := s.take(s.rest[4:end]); err != nil {
			return 0, err
		}
		s.rest = s.rest[end:]
	}
	n := copy(p, s.block.bytes[s.at:])
	s.at += n
	return n, nil
}

// take decompresses one block, in place of the one before.
func (s *snappyBlocks) take(b []byte) error {
	size, err := snappy.DecodedLen(b)
	if err == nil && size/snappyRatio > len(b) {
		err = fmt.Errorf("%d bytes can't hold the %d that they claim", len(b), size)
	}
	if err != nil {
		return err
	}
	if s.block == nil || cap(s.block.bytes) < size {
		s.close()
		if s.release, err = s.reader.claim(int64(size)); err != nil {
			return err
		}
		s.block = takeBuffer(size)
	}
	s.at = 0
	if s.block.bytes, err = snappy.Decode(s.block.bytes[:cap(s.block.bytes)], b); err != nil {
		s.block.bytes = nil // it may be anything
	}
	return err
}

func (s *snappyBlocks) close() {
	if s.block != nil {
		s.block.release()
		s.release()
		s.block = nil
	}
}
