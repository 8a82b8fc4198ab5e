package consumers_test

const childEnv = "USAGE_CRASH_CHILD"

func runChild(string) int { return 0 }
