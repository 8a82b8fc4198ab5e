package producer_test

import (
	"context"
	"log"
	"time"

	"tenantflow/producer"
)

func Example() {
	failed := make(chan producer.Event, 1000) // in a real service a table or a file, which outlives the process
	p, err := producer.New(producer.Config{
		Brokers: []string{"kafka-1:9092", "kafka-2:9092"},
		Source:  "/data-bridge/eu-1",
		Done: func(o producer.Outcome) {
			if o.Err != nil {
				log.Print(o.Err)
				failed <- o.Event // to be enqueued again, as it is
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	sent, err := p.Enqueue(ctx, producer.Event{
		CompanyID: "acme", UserID: "u-1", Tier: "pro", Service: "market-data", Endpoint: "/v1/ticks",
		DataPoints: 120, ProcessingTime: 12345 * time.Microsecond, Revenue: "0.0012",
		ReservationID: "hold-7", // of the call's reservation, if it has one: see Reservations
	})
	if err != nil {
		log.Printf("event %s is not in the buffer: %v", sent.ID, err)
	}

	ctx, cancel = context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		log.Print(err) // each of them was given to Done as well
	}
}
