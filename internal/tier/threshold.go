package tier

// Reached is the number of calls, or of whatever the limit counts, at which a percentage of it is used: rounded up. It is for
// limits that are not Unlimited.
func (l Limit) Reached(percent int) int64 {
	// Without a product that may not fit.
	p := int64(percent)
	return int64(l)/100*p + (int64(l)%100*p+99)/100
}
