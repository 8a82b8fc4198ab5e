package chdb_test

func runChild(dir string) int { return 0 }
