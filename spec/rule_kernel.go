package spec

import "github.com/opencontainers/runtime-spec/specs-go"

// ruleKernel drops requests to features of the kernel that are the machine's rather than a container's.
func ruleKernel(p *pass) error {
	if p.in.Linux.IntelRdt != nil {
		p.dropped("linux.intelRdt", "", "cache and bandwidth classes are the host's")
	}
	if p.in.Linux.MemoryPolicy != nil {
		p.dropped("linux.memoryPolicy", string(p.in.Linux.MemoryPolicy.Mode), "memory placement is the host's")
	}
	if pers := p.in.Linux.Personality; pers != nil {
		if pers.Domain == specs.PerLinux && len(pers.Flags) == 0 {
			p.out.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux}
		} else {
			p.dropped("linux.personality", string(pers.Domain), "only the plain one")
		}
	}
	return nil
}
