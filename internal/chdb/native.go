package chdb

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// The engine writes Native as for a file: no block info, no serialization kinds (protocol revision 0).
// A client that names its protocol revision expects both, so every block is decoded and encoded again.
// clickhouse-go's own columns do it: what they can't read, that client couldn't either.

// revisionWithSerialization is the first protocol revision in which a byte before each column's data
// says whether the column has a serialization of its own (a sparse one, for example).
const revisionWithSerialization = 54454

// reencodeNative writes the Native blocks in data again as a client of protocol revision expects them.
// emit gets every block; the slice is valid only during the call.
func reencodeNative(data []byte, revision uint64, emit func([]byte) error) error {
	reader := chproto.NewReader(bytes.NewReader(data))
	buffer := new(chproto.Buffer)
	for {
		block := proto.NewBlock()
		if err := block.Decode(reader, 0); err != nil {
			if errors.Is(err, io.EOF) && len(block.Columns) == 0 {
				return nil
			}
			return fmt.Errorf("decode a native block of the engine: %w", err)
		}
		buffer.Reset()
		if err := encodeNative(buffer, block, revision); err != nil {
			return fmt.Errorf("encode a native block for revision %d: %w", revision, err)
		}
		if err := emit(buffer.Buf); err != nil {
			return err
		}
	}
}

func encodeNative(buffer *chproto.Buffer, block *proto.Block, revision uint64) error {
	if block.Rows() > 0 {
		return block.Encode(buffer, revision)
	}
	// Without rows a column has no data, and its prefix (the version of a LowCardinality, for example) is
	// left out as well; Block.Encode would write it.
	if err := block.EncodeHeader(buffer, revision); err != nil {
		return err
	}
	for _, c := range block.Columns {
		buffer.PutString(c.Name())
		buffer.PutString(string(c.Type()))
		if revision >= revisionWithSerialization {
			buffer.PutBool(false)
		}
	}
	return nil
}
