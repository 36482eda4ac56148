package spec

import "strings"

// maxVersion is the newest runtime-spec that anything in the result comes from: domainname, time offsets, the scheduler and
// mapped mounts are of 1.1. What came later (netDevices, memoryPolicy, execCPUAffinity) is dropped.
const maxVersion = "1.1.0"

// ruleVersion says what the result complies with. Engines write the version of the library that they were built with, and
// runtimes that do not know it refuse the bundle whatever is in it (crun 1.8.1 and 1.2.0).
func ruleVersion(p *pass) error {
	p.out.Version = p.in.Version
	if !strings.HasPrefix(p.in.Version, "1.0.") && !strings.HasPrefix(p.in.Version, "1.1.") {
		p.out.Version = maxVersion
		p.changed("ociVersion", p.in.Version, "nothing in it is newer than "+maxVersion+", which more OCI runtimes accept")
	}
	return nil
}
