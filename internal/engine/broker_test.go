package engine_test

import (
	"cmp"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
)

// What the consumers build on, asked of both brokers. Where the embedded one differs, the test says so.

// member is one member of a consumer group, without the loop that a client would run.
type member struct {
	c          *kafka.Client
	silence    time.Duration // what it may be silent for; 0: a session
	topic      string
	group      string
	id         string
	generation int
	leader     bool
}

// session is what a member may be silent for. A test whose machine is busy is silent for a while as well; and where a session has to end,
// it waits for that.
const session = 15 * time.Second

// stays is the session of a member that must not be thrown out, however long the machine stands still meanwhile.
const stays = 4 * time.Minute

// join joins or rejoins the group, and returns when the broker has let all members in.
func (m *member) join(ctx context.Context) error {
	for {
		r, err := m.c.JoinGroup(ctx, &kafka.JoinGroupRequest{GroupID: m.group, MemberID: m.id, SessionTimeout: cmp.Or(m.silence, session),
			RebalanceTimeout: 2 * session, ProtocolType: "consumer",
			Protocols: []kafka.GroupProtocol{{Name: "range", Metadata: kafka.GroupProtocolSubscription{Topics: []string{m.topic}}}}})
		if err != nil {
			return err
		}
		m.id = r.MemberID
		switch {
		case errors.Is(r.Error, kafka.MemberIDRequired):
			continue // with the id that the broker has just given
		case r.Error != nil:
			return r.Error
		}
		m.generation, m.leader = r.GenerationID, r.LeaderID == r.MemberID
		return m.sync(ctx, r.Members)
	}
}

func (m *member) sync(ctx context.Context, members []kafka.JoinGroupResponseMember) error {
	req := &kafka.SyncGroupRequest{GroupID: m.group, GenerationID: m.generation, MemberID: m.id, ProtocolType: "consumer", ProtocolName: "range"}
	if m.leader {
		for _, other := range members {
			req.Assignments = append(req.Assignments, kafka.SyncGroupRequestAssignment{MemberID: other.ID,
				Assignment: kafka.GroupProtocolAssignment{AssignedPartitions: map[string][]int{m.topic: {0}}}})
		}
	}
	r, err := m.c.SyncGroup(ctx, req)
	if err != nil {
		return err
	}
	return r.Error
}

func (m *member) heartbeat(ctx context.Context) error {
	r, err := m.c.Heartbeat(ctx, &kafka.HeartbeatRequest{GroupID: m.group, GenerationID: int32(m.generation), MemberID: m.id})
	if err != nil {
		return err
	}
	return r.Error
}

func (m *member) commit(ctx context.Context, offset int64, metadata string) error {
	r, err := m.c.OffsetCommit(ctx, &kafka.OffsetCommitRequest{GroupID: m.group, GenerationID: m.generation, MemberID: m.id,
		Topics: map[string][]kafka.OffsetCommit{m.topic: {{Partition: 0, Offset: offset, Metadata: metadata}}}})
	if err != nil {
		return err
	}
	return r.Topics[m.topic][0].Error
}

// committed returns the group's offset and metadata of partition 0.
func committed(t *testing.T, c *kafka.Client, m *member) (int64, string) {
	t.Helper()
	r, err := c.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: m.group, Topics: map[string][]int{m.topic: {0}}})
	if err == nil {
		err = r.Error
	}
	if err != nil {
		t.Fatal(err)
	}
	p := r.Topics[m.topic][0]
	return p.CommittedOffset, p.Metadata
}

func TestACommitOfAnOldGenerationIsRefused(t *testing.T) {
	t.Parallel()
	onBothBrokers(t, func(t *testing.T, k *engine.Kafka) {
		topic := enginetest.NewTopicOn(t, k, 1)
		c := client(t, k)
		zombie := &member{c: c, topic: topic, group: topic + ".group"}
		if err := zombie.join(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now() // the commit restarts its session timeout
		if err := zombie.commit(t.Context(), 1, "mine"); err != nil {
			t.Fatal(err)
		}
		// Another one joins and the first says nothing: it is thrown out when its session ends.
		heir := &member{c: c, topic: topic, group: topic + ".group"}
		if err := heir.join(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < session/2 {
			t.Errorf("the heir has its place %s after the last word in a session of %s", took, session)
		}
		err := zombie.commit(t.Context(), 2, "still mine")
		if !errors.Is(err, kafka.UnknownMemberId) && !errors.Is(err, kafka.IllegalGeneration) {
			t.Errorf("the commit of a member that was thrown out: %v", err)
		}
		t.Logf("a member that was thrown out is told: %v", err)
		old := *heir
		if err := heir.join(t.Context()); err != nil { // a rebalance
			t.Fatal(err)
		}
		if heir.generation == old.generation {
			t.Log("joining again without need starts no new generation")
		} else if err := old.commit(t.Context(), 3, "old"); !errors.Is(err, kafka.IllegalGeneration) {
			t.Errorf("the commit of a member's former generation: %v", err)
		}
		if err := heir.commit(t.Context(), 4, "heir"); err != nil {
			t.Errorf("the commit of the present generation: %v", err)
		}
		if offset, metadata := committed(t, c, heir); offset != 4 || metadata != "heir" {
			t.Errorf("committed is %d %q, want 4 \"heir\"", offset, metadata)
		}
	})
}

func TestOffsetsAndTheirMetadataOutliveTheBroker(t *testing.T) {
	t.Parallel()
	onOwnBrokers(t, func(t *testing.T, k *engine.Kafka) {
		topic := enginetest.NewTopicOn(t, k, 1)
		m := &member{c: client(t, k), topic: topic, group: topic + ".group", silence: stays} // the broker is away for a part of it
		if err := m.join(t.Context()); err != nil {
			t.Fatal(err)
		}
		longest := strings.Repeat("m", 4096)
		if err := m.commit(t.Context(), 7, longest); err != nil {
			t.Fatal(err)
		}
		if err := m.commit(t.Context(), 8, longest+"m"); k.Kind() == engine.Embedded {
			// It has no limit. Take the commit back.
			if err != nil {
				t.Errorf("a commit with metadata of 4097 bytes: %v", err)
			}
			if err := m.commit(t.Context(), 7, longest); err != nil {
				t.Fatal(err)
			}
		} else if !errors.Is(err, kafka.OffsetMetadataTooLarge) {
			t.Errorf("a commit with metadata of 4097 bytes: %v", err)
		}
		if err := k.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := k.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.c = client(t, k)
		if offset, metadata := committed(t, m.c, m); offset != 7 || metadata != longest {
			t.Errorf("committed is %d with %d bytes of metadata, want 7 with %d", offset, len(metadata), len(longest))
		}
		// The group outlives the broker as well.
		if err := m.heartbeat(t.Context()); err != nil {
			t.Errorf("a member's heartbeat after the broker's restart: %v", err)
		}
	})
}

func TestTheSettingsOfATopicAreHonoured(t *testing.T) {
	t.Parallel()
	onBothBrokers(t, func(t *testing.T, k *engine.Kafka) {
		small := enginetest.NewTopicOn(t, k, 1, kafka.ConfigEntry{ConfigName: "max.message.bytes", ConfigValue: "2000"})
		if _, err := produce(t, k, small, strings.Repeat("x", 1500)); err != nil {
			t.Errorf("a message that fits: %v", err)
		}
		if _, err := produce(t, k, small, strings.Repeat("x", 2500)); !errors.Is(err, kafka.MessageSizeTooLarge) {
			t.Errorf("a message that is too large: %v", err)
		}
		appended := enginetest.NewTopicOn(t, k, 1, kafka.ConfigEntry{ConfigName: "message.timestamp.type", ConfigValue: "LogAppendTime"})
		long := time.Now().Add(-100 * 24 * time.Hour)
		resp, err := client(t, k).Produce(t.Context(), &kafka.ProduceRequest{Topic: appended, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{Time: long, Value: kafka.NewBytes([]byte("v"))})})
		if err != nil || resp.Error != nil {
			t.Fatal(err, resp)
		}
		// The embedded broker sets the time and does not report it.
		if k.Kind() == engine.Apache && time.Since(resp.LogAppendTime).Abs() > time.Minute {
			t.Errorf("the broker's timestamp is %s", resp.LogAppendTime)
		}
		offsets, err := client(t, k).ListOffsets(t.Context(), &kafka.ListOffsetsRequest{
			Topics: map[string][]kafka.OffsetRequest{appended: {kafka.TimeOffsetOf(0, time.Now().Add(-time.Hour))}}})
		if err != nil {
			t.Fatal(err)
		}
		if p := offsets.Topics[appended][0]; len(p.Offsets) != 1 {
			t.Errorf("the record is not found by the time it was appended: %+v", p)
		}
	})
}

func TestAnOffsetOutOfRangeIsAnError(t *testing.T) {
	t.Parallel()
	onBothBrokers(t, func(t *testing.T, k *engine.Kafka) {
		topic := enginetest.NewTopicOn(t, k, 1)
		for range 5 {
			if _, err := produce(t, k, topic, "v"); err != nil {
				t.Fatal(err)
			}
		}
		if err := k.DeleteRecords(t.Context(), topic, 0, 3); err != nil {
			t.Fatal(err)
		}
		for offset, want := range map[int64]error{0: kafka.OffsetOutOfRange, 3: nil, 99: kafka.OffsetOutOfRange} {
			r, err := client(t, k).Fetch(t.Context(), &kafka.FetchRequest{Topic: topic, Offset: offset, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second})
			if err == nil {
				err = r.Error
			}
			if !errors.Is(err, want) {
				t.Errorf("fetching offset %d of the range 3 to 5: %v, want %v", offset, err, want)
			}
		}
	})
}

func TestKafkasOwnToolSetsTheOffsetsOfAGroupBack(t *testing.T) {
	t.Parallel()
	onBothBrokers(t, func(t *testing.T, k *engine.Kafka) {
		topic := enginetest.NewTopicOn(t, k, 1)
		for range 3 {
			if _, err := produce(t, k, topic, "v"); err != nil {
				t.Fatal(err)
			}
		}
		m := &member{c: client(t, k), topic: topic, group: topic + ".group"}
		if err := m.join(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.commit(t.Context(), 3, "pending"); err != nil {
			t.Fatal(err)
		}
		if _, err := m.c.LeaveGroup(t.Context(), &kafka.LeaveGroupRequest{GroupID: m.group, Members: []kafka.LeaveGroupRequestMember{{ID: m.id}}}); err != nil {
			t.Fatal(err)
		}
		if err := k.ResetOffsets(t.Context(), m.group, topic); err != nil {
			t.Fatal(err)
		}
		if offset, metadata := committed(t, m.c, m); offset != 0 || metadata != "" {
			t.Errorf("committed is %d %q, want 0 without metadata", offset, metadata)
		}
	})
}

func TestAMemberThatDiesWhileItJoinsIsThrownOut(t *testing.T) {
	t.Parallel()
	onBothBrokers(t, func(t *testing.T, k *engine.Kafka) {
		topic := enginetest.NewTopicOn(t, k, 1)
		c := client(t, k)
		first := &member{c: c, topic: topic, group: topic + ".group", silence: stays}
		if err := first.join(t.Context()); err != nil {
			t.Fatal(err)
		}
		// The second one's process ends while the broker waits for the first to rejoin.
		alive, die := context.WithCancel(t.Context())
		var dialer net.Dialer
		gone := make(chan error, 1)
		transport := &kafka.Transport{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err == nil {
				context.AfterFunc(alive, func() { _ = conn.Close() })
			}
			return conn, err
		}}
		t.Cleanup(transport.CloseIdleConnections)
		second := &member{topic: topic, group: topic + ".group", c: &kafka.Client{Addr: c.Addr, Transport: transport}}
		go func() { gone <- second.join(alive) }()
		ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
		defer cancel()
		// await waits for a state of the group in which it has some members. (What Client.Heartbeat returns does not show it: it reads
		// the fields of the answer in another order than the broker writes them.)
		await := func(state string, members int) {
			t.Helper()
			if err := enginetest.Eventually(ctx, func() bool {
				if err := first.heartbeat(ctx); err != nil {
					t.Fatal(err)
				}
				r, err := c.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{first.group}})
				if err != nil {
					t.Fatal(err)
				}
				group := r.Groups[0]
				if group.GroupState == "PreparingRebalance" && state != group.GroupState {
					if err := first.join(ctx); err != nil {
						t.Fatal(err)
					}
				}
				return group.GroupState == state && len(group.Members) == members
			}); err != nil {
				t.Fatalf("%s with %d members: %v", state, members, err)
			}
		}
		await("PreparingRebalance", 2)
		die()
		if err := <-gone; err == nil {
			t.Fatal("the second one has joined")
		}
		await("Stable", 1)
	})
}
