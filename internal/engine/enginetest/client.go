package enginetest

import (
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"tenantflow/internal/engine"
)

// Clients give up after seconds by default. Where a test asks an engine for what it has, a machine that is busy must not be an engine that is
// away, and a write that is sent again because its answer was late is written twice.

// Writer is a writer to the topics of a client, which names the topic or has its messages do so. It sends nothing a second time before
// Patience is over: kafka-go's writer can't tell a record that was written from one that was not.
func Writer(c *kafka.Client) *kafka.Writer {
	return &kafka.Writer{Addr: c.Addr, Transport: c.Transport, RequiredAcks: kafka.RequireAll, ReadTimeout: Patience, WriteTimeout: Patience}
}

// KafkaClient is a client of a broker that waits for as long as Patience allows. What it knows of topics is a tenth of a second old at most: in
// tests they come and go.
//
// kafka-go gives the first look at a cluster that long as well, and has every call fail until the next one if that was not enough; so it is
// handed out when it has had its first look. Make it when the topics are there.
func KafkaClient(t testing.TB, address string) *kafka.Client {
	t.Helper()
	transport := &kafka.Transport{MetadataTTL: 100 * time.Millisecond, DialTimeout: Patience}
	t.Cleanup(transport.CloseIdleConnections)
	c := &kafka.Client{Addr: kafka.TCP(address), Transport: transport, Timeout: Patience}
	Await(t, "the cluster of "+address+" is known", func() bool {
		_, err := c.Metadata(t.Context(), &kafka.MetadataRequest{})
		return err == nil
	})
	return c
}

// RedisOptions are those of a client of a Redis that waits for an answer for as long as Patience allows.
func RedisOptions(t testing.TB, url string) *redis.Options {
	t.Helper()
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = Patience, Patience, Patience, Patience
	return o
}

// ClosedAddress is a HOST:PORT that refuses connections until the test ends: it is bound, so nothing else can listen there meanwhile.
func ClosedAddress(t testing.TB) string {
	t.Helper()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(socket) })
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(bound.(*syscall.SockaddrInet4).Port)) // it was bound to IPv4
}

// RecreateTopic deletes a topic and makes it again, empty, and returns when both the broker and the client know: a writer gives up at once where
// its client has last seen that there is no such topic.
func RecreateTopic(t testing.TB, k *engine.Kafka, c *kafka.Client, name string, partitions int, config ...kafka.ConfigEntry) {
	t.Helper()
	res, err := c.DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{name}})
	if err == nil {
		err = res.Errors[name]
	}
	if err != nil {
		t.Fatalf("delete topic %s: %v", name, err)
	}
	seen := func(there bool) func() bool {
		return func() bool {
			meta, err := c.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{name}})
			if err != nil {
				return false
			}
			found := len(meta.Topics) == 1 && meta.Topics[0].Error == nil
			return found == there && (!there || len(meta.Topics[0].Partitions) == partitions)
		}
	}
	Await(t, "topic "+name+" is gone", seen(false))
	CreateTopic(t, k, name, partitions, config...)
	Await(t, "the client sees the new topic "+name, seen(true))
}
