// Package operations shows an operator on one page what the service does: its parts, the lag of every consumer group, the stores and how
// fast they answer, dead letters, tasks, quotas near their limit, the last verification, and what business rules refused.
//
//	board := operations.New(operations.Config{Health: h, Kafka: client, ...})
//	go board.Run(ctx)
//	report := board.Report(time.Now()) // the JSON of GET /v1/operations
//	err := operations.WritePage(w, report, operations.View{})
//
// Each panel is gathered by a goroutine of its own, at an interval and with a timeout of its own. A report is made of what was gathered
// last and asks nothing: a store that hangs makes its own panels old, which they say, and leaves the others and the speed of the page alone.
//
// What is shown comes from the stores and from Kafka, not from this process's consumers, so a process that runs only the api part shows
// the same, but for the states of parts that run elsewhere.
package operations
