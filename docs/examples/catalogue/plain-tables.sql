-- The tables that are nothing but tables: no row security, no children by inheritance whose rows are read with their own,
-- no partition that is elsewhere. One a line, as `labels` takes them.
select format('%I.%I', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.relpersistence <> 't' and not c.relrowsecurity
  and n.nspname not in ('pg_catalog', 'information_schema')
  and not exists (select from pg_inherits i where i.inhparent = c.oid and c.relkind = 'r')
  and not exists (select from pg_partition_tree(c.oid) t join pg_class k on k.oid = t.relid where k.relkind not in ('r', 'p'))
order by 1;
