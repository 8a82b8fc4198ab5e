package kafka

import "time"

// stride is how many records share what is dear for a single one: a look at the clock, and waiting for memory.
const stride = 32

// A Clock tells a batch the time at which its records are read, looking once for stride of them. Its zero value is ready; it
// is for one batch, so that the time it tells is never older than that.
type Clock struct {
	now  time.Time
	told int
}

// Now is about the time.
func (c *Clock) Now() time.Time {
	if c.told%stride == 0 {
		c.now = time.Now()
	}
	c.told++
	return c.now
}
