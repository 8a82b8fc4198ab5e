package tier

// LimitNames are the names of the limits that are a Limit, in ascending order.
func LimitNames() []string {
	return []string{"daily_api_calls", "max_users", "retention_days", "storage_mb"}
}

// Named returns the limit of a name, to be read or set; nil: there is none of that name.
func (l *Limits) Named(name string) *Limit {
	switch name {
	case "daily_api_calls":
		return &l.DailyAPICalls
	case "max_users":
		return &l.MaxUsers
	case "retention_days":
		return &l.RetentionDays
	case "storage_mb":
		return &l.StorageMB
	}
	return nil
}
