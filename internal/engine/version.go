package engine

// Versions of everything this package installs. Debian's packages are pinned by major version only, as the
// distribution keeps one build of each.
const (
	clickhousePackage = "@chdb/lib-linux-x64-gnu"
	clickhouseVersion = "26.7.3-stable.1"

	kafkaVersion      = "4.2.0"
	kafkaScalaVersion = "2.13"
	slf4jVersion      = "1.7.36" // the slf4j-api that Kafka brings
	mavenCopyPlugin   = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

	postgresMajor   = "15"
	postgresPackage = "postgresql-15"
	redisPackage    = "redis-server"
	luaPackage      = "lua5.4"
	promtoolPackage = "prometheus"
	javaPackage     = "default-jre-headless"
	mavenPackage    = "maven"
	npmPackage      = "npm"
)
