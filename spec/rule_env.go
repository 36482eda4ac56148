package spec

import "strings"

// sideEffectEnv are variables that tell a program about something it was handed from outside, which an agent never is.
var sideEffectEnv = map[string]string{
	"NOTIFY_SOCKET":   "names the host's service manager, whose socket is not there",
	"LISTEN_FDS":      "announces file descriptors that are not there",
	"LISTEN_PID":      "announces file descriptors that are not there",
	"LISTEN_FDNAMES":  "announces file descriptors that are not there",
	"_LIBCONTAINER_*": "belongs to the runtime",
}

// sideEffect returns why the variable does not reach a process, or "".
func sideEffect(key string) string {
	if strings.HasPrefix(key, "_LIBCONTAINER_") {
		key = "_LIBCONTAINER_*"
	}
	return sideEffectEnv[key]
}

// mergeEnv puts own, already checked, over env. Values never reach the record: they may be secrets.
func mergeEnv(env, own []string, r *recorder) []string {
	set := map[string]string{} // own entries by key; the last one counts
	for _, e := range own {
		set[envKey(e)] = e
	}
	var out []string
	done := map[string]bool{} // keys of own that are in out
	for _, e := range env {
		key := envKey(e)
		if reason := sideEffect(key); reason != "" {
			r.dropped("process.env["+key+"]", "", reason)
			continue
		}
		want, ours := set[key]
		switch {
		case !ours:
			out = append(out, e)
			continue
		case !done[key]:
			out = append(out, want)
		}
		if done[key] || e != want {
			r.changed("process.env["+key+"]", "", "set by the sandbox")
		}
		done[key] = true
	}
	for _, e := range own {
		if key := envKey(e); !done[key] {
			r.added("process.env["+key+"]", "", "set by the sandbox")
			out = append(out, set[key])
			done[key] = true
		}
	}
	return out
}

func envKey(entry string) string {
	key, _, _ := strings.Cut(entry, "=")
	return key
}
