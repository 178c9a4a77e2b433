// SPDX-License-Identifier: Apache-2.0

// The scenario that a fake libnvidia-ml.so.1 plays: a file beside the library,
// read again whenever it has changed.
//
//   gpus N                    how many there are
//   mig GPU N                 it is divided into N instances
//   gpm 0|1, links N          whether GPUs have GPM, and how many NVLinks
//   process GPU KIND PID MIB INSTANCE   KIND c, g or m; INSTANCE -1: none
//   used GPU PID PERCENT      what a process did
//   fail FUNCTION CODE GPU    GPU -1: all; FUNCTION *: all
//   hang FUNCTION GPU         until the line is gone
//   field ID CODE             a field that is not given
//   activity GPU SM TENSOR DRAM, in percent
//   busy GPU PERCENT, memory GPU MIB   what the device does, and has in use
//   xid SEQ GPU CODE INSTANCE, migchange SEQ   told once
//   wide                      processes have 32 bytes, as with drivers 530 to 535.86

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST 256
#define GPUS 16
#define INSTANCES 7

struct rule { char function[64]; int code, gpu; };
struct process { int gpu, instance; char kind; unsigned pid; unsigned long long mib; };
struct use { int gpu; unsigned pid, percent; };
struct told { unsigned seq; int gpu; unsigned code; int instance; };

static struct scenario {
	int gpus, gpm, links, wide, rules, processes, uses, events, fields;
	int mig[GPUS], busy[GPUS], memory[GPUS], activity[GPUS][3];
	struct rule rule[MOST];
	struct process process[MOST];
	struct use use[MOST];
	struct told event[MOST];
	struct { unsigned id; int code; } field[MOST];
} now;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct timespec read_at;
static off_t read_size;
static ino_t read_inode;
static unsigned told_seq;

static const char *scenario_path(void) {
	static char path[4096];
	if (!path[0]) {
		Dl_info info;
		dladdr((void *)scenario_path, &info);
		snprintf(path, sizeof path, "%s", info.dli_fname);
		char *slash = strrchr(path, '/');
		strcpy(slash ? slash + 1 : path, "scenario");
	}
	return path;
}

static void scenario_line(struct scenario *s, const char *line) {
	char word[64];
	int a, b, c, d;
	struct rule r = {.gpu = -1};
	struct process p;
	struct use u;
	struct told t = {.gpu = -1, .instance = -1};
	if (sscanf(line, "gpus %d", &a) == 1) s->gpus = a;
	else if (sscanf(line, "mig %d %d", &a, &b) == 2) s->mig[a] = b;
	else if (sscanf(line, "gpm %d", &a) == 1) s->gpm = a;
	else if (sscanf(line, "links %d", &a) == 1) s->links = a;
	else if (sscanf(line, "busy %d %d", &a, &b) == 2) s->busy[a] = b;
	else if (sscanf(line, "activity %d %d %d %d", &a, &b, &c, &d) == 4) s->activity[a][0] = b + 1, s->activity[a][1] = c + 1, s->activity[a][2] = d + 1;
	else if (sscanf(line, "memory %d %d", &a, &b) == 2) s->memory[a] = b;
	else if (sscanf(line, "field %d %d", &a, &b) == 2) { s->field[s->fields].id = a; s->field[s->fields++].code = b; }
	else if (sscanf(line, "process %d %c %u %llu %d", &p.gpu, &p.kind, &p.pid, &p.mib, &p.instance) == 5) s->process[s->processes++] = p;
	else if (sscanf(line, "used %d %u %u", &u.gpu, &u.pid, &u.percent) == 3) s->use[s->uses++] = u;
	else if (sscanf(line, "fail %63s %d %d", r.function, &r.code, &r.gpu) == 3) s->rule[s->rules++] = r;
	else if (sscanf(line, "hang %63s %d", r.function, &r.gpu) == 2) { r.code = -1; s->rule[s->rules++] = r; }
	else if (sscanf(line, "xid %u %d %u %d", &t.seq, &t.gpu, &t.code, &t.instance) == 4) s->event[s->events++] = t;
	else if (sscanf(line, "migchange %u", &t.seq) == 1) s->event[s->events++] = t;
	else if (sscanf(line, "%63s", word) == 1 && !strcmp(word, "wide")) s->wide = 1;
}

// With the mutex held.
static void scenario_read(void) {
	struct stat st;
	if (stat(scenario_path(), &st)) return;
	if (st.st_ino == read_inode && st.st_size == read_size && st.st_mtim.tv_sec == read_at.tv_sec && st.st_mtim.tv_nsec == read_at.tv_nsec) return;
	FILE *f = fopen(scenario_path(), "r");
	if (!f) return;
	static struct scenario next;
	memset(&next, 0, sizeof next);
	next.gpm = 1;
	next.links = 4;
	for (int i = 0; i < GPUS; i++) next.busy[i] = 10 + i, next.memory[i] = (i + 1) * 1024;
	char line[256];
	while (fgets(line, sizeof line, f)) scenario_line(&next, line);
	fclose(f);
	now = next;
	read_inode = st.st_ino, read_size = st.st_size, read_at = st.st_mtim;
}

static int scenario_rule(const char *function, int gpu) {
	pthread_mutex_lock(&mutex);
	scenario_read();
	int code = 0;
	for (int i = 0; i < now.rules && !code; i++)
		if ((!strcmp(now.rule[i].function, "*") || !strcmp(now.rule[i].function, function)) && (now.rule[i].gpu < 0 || now.rule[i].gpu == gpu))
			code = now.rule[i].code;
	pthread_mutex_unlock(&mutex);
	return code;
}

// What a call answers by the scenario, before anything else. Of an own call the
// GPU is -2, so that a rule for all GPUs is for it, too, and one for a GPU is not.
static int enter(const char *function, int gpu) {
	int code;
	while ((code = scenario_rule(function, gpu)) < 0) usleep(2000);
	return code;
}
