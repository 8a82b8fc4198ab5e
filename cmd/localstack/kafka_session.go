package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// sessions ends those of group members that the embedded broker forgets: where the connection of a member is lost while it
// waits to be let in, the broker lets it in, may start no clock for it, and leaves its partitions to it for good. A process
// that is killed while it starts does that. Apache Kafka ends such a session like any other.
type sessions struct {
	client *kafka.Client
	log    *slog.Logger

	mu     sync.Mutex
	groups map[string]*groupSessions
}

type groupSessions struct {
	timeout time.Duration        // the longest that a member has asked for
	heard   map[string]time.Time // when each member was heard last, or else seen first
}

// watchSessions listens to what members say. Nothing is changed by that.
func watchSessions(cluster *kfake.Cluster, addr string, log io.Writer) *sessions {
	s := &sessions{
		client: &kafka.Client{Addr: kafka.TCP(addr), Timeout: 5 * time.Second},
		log:    slog.New(slog.NewTextHandler(log, nil)),
		groups: map[string]*groupSessions{},
	}
	for _, key := range []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.OffsetCommit} {
		cluster.ControlKey(int16(key), func(request kmsg.Request) (kmsg.Response, error, bool) { //nolint:revive // the broker's signature
			s.hear(request)
			return nil, nil, false
		})
	}
	return s
}

func (s *sessions) hear(request kmsg.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	said := func(group, member string) {
		if g := s.groups[group]; g != nil && member != "" {
			g.heard[member] = time.Now()
		}
	}
	switch r := request.(type) {
	case *kmsg.JoinGroupRequest:
		g := s.groups[r.Group]
		if g == nil {
			g = &groupSessions{heard: map[string]time.Time{}}
			s.groups[r.Group] = g
		}
		g.timeout = max(g.timeout, time.Duration(r.SessionTimeoutMillis)*time.Millisecond)
		said(r.Group, r.MemberID)
	case *kmsg.SyncGroupRequest:
		said(r.Group, r.MemberID)
	case *kmsg.HeartbeatRequest:
		said(r.Group, r.MemberID)
	case *kmsg.OffsetCommitRequest:
		said(r.Group, r.MemberID)
	}
}

// run ends sessions until ctx ends.
func (s *sessions) run(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.end(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "ending sessions of lost members failed; trying again", slog.Any("error", err))
		}
	}
}

func (s *sessions) end(ctx context.Context) error {
	s.mu.Lock()
	request := &kafka.DescribeGroupsRequest{}
	for id := range s.groups {
		request.GroupIDs = append(request.GroupIDs, id)
	}
	s.mu.Unlock()
	if len(request.GroupIDs) == 0 {
		return nil
	}
	described, err := s.client.DescribeGroups(ctx, request)
	if err != nil {
		return err
	}
	for i := range described.Groups {
		group := &described.Groups[i]
		for _, member := range s.silent(group) {
			s.log.InfoContext(ctx, "the session of a lost member is over", slog.String("group", group.GroupID), slog.String("member", member))
			if _, err := s.client.LeaveGroup(ctx, &kafka.LeaveGroupRequest{GroupID: group.GroupID, Members: []kafka.LeaveGroupRequestMember{{ID: member}}}); err != nil {
				return err
			}
		}
	}
	return nil
}

// silent returns the members that were not heard for the time of a session, and forgets those that are gone.
func (s *sessions) silent(group *kafka.DescribeGroupsResponseGroup) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[group.GroupID]
	now := time.Now()
	// Who waits to be let in has nothing to say.
	waiting := group.GroupState != "Stable" && group.GroupState != "CompletingRebalance"
	heard := make(map[string]time.Time, len(group.Members))
	var silent []string
	for _, m := range group.Members {
		last, known := g.heard[m.MemberID]
		if !known || waiting {
			last = now
		}
		heard[m.MemberID] = last
		if now.Sub(last) > g.timeout {
			silent = append(silent, m.MemberID)
		}
	}
	g.heard = heard
	return silent
}
