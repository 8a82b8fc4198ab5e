package events

// A member is one of a usage event's data.
type member uint8

// The members that the schema knows.
const (
	outside member = iota // none: where the object begins
	unknownMember
	companyID
	userID
	subscriptionTier
	serviceName
	apiEndpoint
	dataPoints
	processingTime
	timestamp
	billingPeriod
	revenueAttributed
	reservationID

	members
)

// memberOf is the member of a name.
func memberOf(name []byte) member {
	switch string(name) {
	case "company_id":
		return companyID
	case "user_id":
		return userID
	case "subscription_tier":
		return subscriptionTier
	case "service_name":
		return serviceName
	case "api_endpoint":
		return apiEndpoint
	case "data_points_consumed":
		return dataPoints
	case "processing_time_ms":
		return processingTime
	case "timestamp":
		return timestamp
	case "billing_period":
		return billingPeriod
	case "revenue_attributed":
		return revenueAttributed
	case "reservation_id":
		return reservationID
	}
	return unknownMember
}

// spellings is how members were written in the events before. A producer writes all its events alike, so as a rule the next member is
// known after one comparison, and its name need not be read.
type spellings struct {
	after [members]member // that followed each one last
	as    [members]spelling
}

// spelling is a name from its first byte of white space or quote to the first byte of the value.
type spelling struct {
	text [48]byte
	size uint8 // 0: not known, or longer
}

// member reads a member's name and the colon behind it, at i, where before is the member that precedes it. It gives where the value
// begins, or bad.
func (d *UsageDecoder) member(text []byte, i int, before member) (at member, next int) {
	likely := d.spelled.after[before]
	s := &d.spelled.as[likely]
	if end := i + int(s.size); end > i && end < len(text) && string(text[i:end]) == string(s.text[:s.size]) && text[end] > ' ' {
		return likely, end
	}
	name, next := d.scan.name(text, i)
	if next == bad {
		return unknownMember, bad
	}
	if at = memberOf(name); at == unknownMember {
		return at, next
	}
	d.spelled.after[before] = at
	if s = &d.spelled.as[at]; next-i <= len(s.text) {
		s.size = uint8(copy(s.text[:], text[i:next])) // #nosec G115 -- at most 48
	}
	return at, next
}
