package tier

// LimitNames are the names of the limits that are a Limit, in ascending order.
func LimitNames() []string {
	return []string{"daily_api_calls", "daily_data_points", "max_users", "retention_days", "storage_mb"}
}

// Named returns the limit of a name; false: there is none of that name.
func (l *Limits) Named(name string) (Limit, bool) {
	if name == "daily_data_points" {
		return l.DataPoints(), true
	}
	if to := l.named(name); to != nil {
		return *to, true
	}
	return 0, false
}

// Set gives the limit of a name another value. Where there is none of that name it does nothing.
func (l *Limits) Set(name string, value Limit) {
	if name == "daily_data_points" {
		l.DailyDataPoints = &value
	} else if to := l.named(name); to != nil {
		*to = value
	}
}

// named is where a limit is that every tier has.
func (l *Limits) named(name string) *Limit {
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
