package tenantmodel

// closing ends a subscription for the events of the partition that it stands in, and if that is the one of the company's events, for all.
func (j *judge) closing(c *company, d deadline, e *Event) {
	switch {
	case c.final || c.shutIn[e.Partition] || c.known && c.home != e.Partition:
		return
	case c.known:
		c.final = true
	case c.shutIn == nil:
		c.shutIn = map[int]bool{e.Partition: true}
	default:
		c.shutIn[e.Partition] = true
	}
	if !c.shut {
		j.meet(c, d, e)
	}
}

// refuses reports whether an event comes behind the end of the subscription. One of another partition than that stands in does not.
func (c *company) refuses(e *Event) bool {
	if c.final || c.shut && c.shutIn[e.Partition] {
		return true
	}
	if c.shut {
		c.shut, c.shutIn, c.sub.status = false, nil, active
	}
	c.known, c.home = true, e.Partition
	return false
}
