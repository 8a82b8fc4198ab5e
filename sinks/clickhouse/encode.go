package clickhouse

import (
	"encoding/binary"

	"github.com/ClickHouse/ch-go/proto"
)

// usageColumns are the columns of usage_tracking in the order every insert names them. A deduplication token covers
// a block whatever its columns are, so they must never depend on the batch.
const usageColumns = "event_id, event_source, sign, user_id, company_id, timestamp, subscription_tier, service_name, api_endpoint, " +
	"data_points_consumed, processing_time_ms, billing_period, revenue_attributed, voids_source, voids_id, _topic, _partition, _offset, _insert_by"

// encodeNative appends the given rows of b to buf as one block of ClickHouse's Native format (the layout of
// protocol revision 0, which is what an HTTP insert takes: no block info, no serialization kinds).
func encodeNative(buf *proto.Buffer, b *Block, rows []int32, topic string, partition int, insertBy int64) {
	if b.Len() > 0 {
		// What the rows take in memory is a little more than what they take here.
		reserve(buf, int(b.Bytes()/int64(b.Len())+1)*len(rows)+1<<10)
	}
	buf.PutInt(19) // columns
	buf.PutInt(len(rows))

	start := func(name, columnType string) {
		buf.PutString(name)
		buf.PutString(columnType)
	}
	start("event_id", "String")
	encodeText(buf, &b.eventID, rows)
	start("event_source", "LowCardinality(String)")
	encodeDictionary(buf, &b.source, rows)
	start("sign", "Int8")
	encodeSigns(buf, b, rows)
	start("user_id", "String")
	encodeText(buf, &b.user, rows)
	start("company_id", "String")
	encodeText(buf, &b.company, rows)
	start("timestamp", "DateTime64(3, 'UTC')")
	encodeInt64(buf, b.timestamp, rows)
	start("subscription_tier", "LowCardinality(String)")
	encodeDictionary(buf, &b.tier, rows)
	start("service_name", "LowCardinality(String)")
	encodeDictionary(buf, &b.service, rows)
	start("api_endpoint", "LowCardinality(String)")
	encodeDictionary(buf, &b.endpoint, rows)
	start("data_points_consumed", "UInt32")
	out := grow(buf, 4*len(rows))
	for i, r := range rows {
		binary.LittleEndian.PutUint32(out[4*i:], b.points[r])
	}
	start("processing_time_ms", "Decimal(18, 3)")
	encodeInt64(buf, b.processing, rows)
	start("billing_period", "LowCardinality(String)")
	encodeDictionary(buf, &b.period, rows)
	start("revenue_attributed", "Decimal(18, 6)")
	encodeInt64(buf, b.revenue, rows)
	encodeVoids(buf, b, rows)
	start("_topic", "LowCardinality(String)")
	encodeConstant(buf, topic, len(rows))
	start("_partition", "UInt16")
	out = grow(buf, 2*len(rows))
	for i := range rows {
		binary.LittleEndian.PutUint16(out[2*i:], uint16(partition)) // #nosec G115 -- checked when the partition is opened
	}
	start("_offset", "Int64")
	encodeInt64(buf, b.offset, rows)
	start("_insert_by", "DateTime64(3, 'UTC')")
	out = grow(buf, 8*len(rows))
	for i := range rows {
		binary.LittleEndian.PutUint64(out[8*i:], uint64(insertBy)) // #nosec G115 -- two's complement on the wire
	}
}

// reserve makes room for n bytes more.
func reserve(buf *proto.Buffer, n int) {
	if len(buf.Buf)+n > cap(buf.Buf) {
		// Not append(make): that would allocate the extension as well.
		bigger := make([]byte, len(buf.Buf), len(buf.Buf)+n)
		copy(bigger, buf.Buf)
		buf.Buf = bigger
	}
}

// grow lengthens buf by n bytes and returns them.
func grow(buf *proto.Buffer, n int) []byte {
	at := len(buf.Buf)
	if cap(buf.Buf)-at < n {
		reserve(buf, cap(buf.Buf)+n) // doubling keeps the copies few
	}
	buf.Buf = buf.Buf[:at+n]
	return buf.Buf[at:]
}

func encodeText(buf *proto.Buffer, t *text, rows []int32) {
	for _, r := range rows {
		v := t.at(int(r))
		buf.Buf = binary.AppendUvarint(buf.Buf, uint64(len(v)))
		buf.Buf = append(buf.Buf, v...)
	}
}

func encodeInt64(buf *proto.Buffer, column []int64, rows []int32) {
	out := grow(buf, 8*len(rows))
	for i, r := range rows {
		binary.LittleEndian.PutUint64(out[8*i:], uint64(column[r])) // #nosec G115 -- two's complement on the wire
	}
}

// The low-cardinality layout: a version, then flags with the width of the keys, the dictionary, and the keys.
// Source: ch-go's proto.ColLowCardinality, ClickHouse's SerializationLowCardinality.
const (
	sharedDictionary = 1                  // serialization version: dictionary and keys travel together
	additionalKeys   = 1<<9 | 1<<10       // a dictionary follows, and replaces any earlier one
	width8           = additionalKeys     // keys of one byte
	width32          = additionalKeys | 2 // keys of four
)

func encodeDictionary(buf *proto.Buffer, d *dictionary, rows []int32) {
	n := len(d.values.ends)
	narrow := n <= 256
	buf.PutInt64(sharedDictionary)
	if narrow {
		buf.PutInt64(width8)
	} else {
		buf.PutInt64(width32)
	}
	buf.PutInt64(int64(n))
	for i := range n {
		v := d.values.at(i)
		buf.Buf = binary.AppendUvarint(buf.Buf, uint64(len(v)))
		buf.Buf = append(buf.Buf, v...)
	}
	buf.PutInt64(int64(len(rows)))
	if narrow {
		out := grow(buf, len(rows))
		for i, r := range rows {
			out[i] = byte(d.keys[r])
		}
		return
	}
	out := grow(buf, 4*len(rows))
	for i, r := range rows {
		binary.LittleEndian.PutUint32(out[4*i:], d.keys[r])
	}
}

func encodeConstant(buf *proto.Buffer, v string, rows int) {
	buf.PutInt64(sharedDictionary)
	buf.PutInt64(width8)
	buf.PutInt64(1)
	buf.PutString(v)
	buf.PutInt64(int64(rows))
	clear(grow(buf, rows))
}
