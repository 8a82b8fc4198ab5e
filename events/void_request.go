package events

import "time"

// UsageVoidRequested is the data of company.usage_void_requested.v1.
type UsageVoidRequested struct {
	CompanyID   string
	UserID      string
	UsageSource string // identity of the usage to be taken back
	UsageID     string
	Timestamp   time.Time // of that usage, to the millisecond
	Reason      string
}

// VoidID is the id of the void that the request asks for.
func (p *UsageVoidRequested) VoidID() string { return VoidID(p.UsageSource, p.UsageID, p.Timestamp) }

// voidRequest takes the data out of an object.
func (o object) voidRequest(company string, at time.Time) *UsageVoidRequested {
	return &UsageVoidRequested{company, o.text("user_id"), o.text("usage_source"), o.text("usage_id"),
		o.time("timestamp", at).Truncate(time.Millisecond), o.text("reason")}
}

// RevenueText is the revenue that the void takes back, as a decimal with 6 digits behind the point.
func (v *UsageVoided) RevenueText() string { return showFixed(v.Revenue, 6) }
