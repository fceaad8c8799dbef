import java.util.function.LongPredicate;

import org.apache.cassandra.db.partitions.PurgeFunction;

/**
 * What a replica does to its rows before it answers.
 *
 * A cell that has expired is a tombstone to the others, which wins over a live cell of the same time;
 * a tombstone past its grace is nothing.
 */
final class Purge extends PurgeFunction
{
    Purge(long nowInSec, long gcBeforeInSec)
    {
        super(nowInSec, gcBeforeInSec, Long.MAX_VALUE, false, false);
    }

    @Override
    protected LongPredicate getPurgeEvaluator()
    {
        return time -> true;
    }
}
