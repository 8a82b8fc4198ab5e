// Package producer publishes usage events from Go services: usage.recorded.v1 to usage.events, by kafka-go.
//
//	p, err := producer.New(producer.Config{
//		Brokers: []string{"kafka-1:9092", "kafka-2:9092"},
//		Source:  "/data-bridge/eu-1",
//		Done: func(o producer.Outcome) {
//			if o.Err != nil {
//				keep(o.Event) // and give it to Enqueue again, as it is
//			}
//		},
//	})
//	...
//	_, err = p.Enqueue(ctx, producer.Event{CompanyID: "acme", UserID: "u-1", Tier: "pro", ...})
//	...
//	err = p.Close(ctx)
//
// [Reservations] holds a part of a user's quota before the work is done; the event that names it (Event.ReservationID) ends the hold when it is counted.
//
// # Sending again is always harmless
//
// An event gets its id and its time when it is enqueued, and keeps them over every retry. The service counts one identity (source and id)
// once, however often it arrives. So nothing here is lost because its acknowledgement was, and an event that has failed may be enqueued again
// as the Outcome or Enqueue returned it: same id, same data, same key.
//
// kafka-go's producer is not idempotent in Kafka's sense: a request whose acknowledgement got lost is sent again, and its records may stand in
// the log twice. That needs no protocol between client and broker here, because the identity already makes the second one harmless, also
// across restarts of the sending process, which Kafka's idempotent producer does not cover.
//
// # Outcomes
//
// Every event that Enqueue has accepted has exactly one outcome: all in-sync replicas have acknowledged it, or it has failed with an error.
// Done is called once with it, and Stats counts it. An event fails
//
//   - when the broker refuses it (MESSAGE_TOO_LARGE, INVALID_RECORD and the like). A request that is refused is split in halves until the
//     event that is at fault is alone; the others go through;
//   - when the broker refuses the producer (no right to the topic, a failed login): a person has to act, so nothing is tried again;
//   - when it has no acknowledgement within Config.Timeout: [ErrExpired]. Until then everything else is tried again, after 100 ms at first and
//     2 s at most;
//   - when Close gives up: [ErrClosed].
//
// After ErrExpired and ErrClosed it may still be in the log: the outcome is unknown, and sending it again is right.
//
// # Order
//
// Events of one key that one goroutine enqueues arrive in that order, also over retries: a partition has one request under way, and the next
// is sent when it has its outcome. A retry may repeat events further back in the log; their first occurrences stay in order. Two things
// break it: an event that has failed is passed by those behind it, and a topic that gets more partitions has some keys in another one.
//
// # Memory
//
// The buffer holds what has no outcome yet, at most Config.BufferEvents events and Config.BufferBytes bytes of their records. With the events
// as they were given, which Done gets back, that is about twice BufferBytes, and half a kilobyte for each event.
package producer
