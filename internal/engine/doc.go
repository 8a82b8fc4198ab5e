// Package engine runs the real stores and brokers tenantflow talks to, each as one child process: ClickHouse (libchdb
// behind a small HTTP server), Kafka (an embedded broker or Apache Kafka), PostgreSQL and Redis in Dragonfly's place.
// It needs no Docker: what is missing is installed by apt-get, npm and mvn, and reused from then on.
//
//	redis, err := engine.StartRedis(ctx, engine.Options{Dir: dir})
//	...
//	redis.Kill()       // SIGKILL, as a crash would
//	redis.Start(ctx)   // the same data, the same port
//	redis.Stop()
//
// An engine that has started answers requests: Start returns only after a real one has been answered. Engines die with
// the process that started them, also when that is killed, so nothing is left behind by a test that crashes. They
// listen on 127.0.0.1 only.
//
// The subpackage enginetest starts engines for tests, and [Proxy] stands in front of one to break its connections.
package engine
